"""The bound of the mutual information against generators with a known one."""

import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.batch import Batch
from ppvae.engine.pair import Pair
from ppvae.guides import RecognitionGuide
from ppvae.models import ImplicitModel
from ppvae.nn import MLP
from ppvae.objectives.information import information_bound

LOCS, NOISE = torch.tensor([-1.5, 0.2, 1.0]).double(), 0.7
DRAWS = 40_000


def mixture(temperature=1.0):
    """x = loc_c + .7 noise, with the exact posterior of c where the temperature is 1."""
    line = nn.Linear(4, 1, bias=False).double()
    line.weight.data = torch.cat([LOCS, torch.tensor([NOISE]).double()]).unsqueeze(0)
    network = nn.Linear(1, 3).double()
    network.weight.data = (LOCS / NOISE**2).unsqueeze(1) / temperature
    network.bias.data = -LOCS.square() / (2 * NOISE**2) / temperature
    return Pair(ImplicitModel(line, num_classes=3, noise_dim=1), RecognitionGuide(network, num_classes=3))


def line(slope=0.8, noise=0.3, factor=0.9, scale=0.5):
    """x = slope k + noise, with q = N(factor x, scale^2): a pair with a bound in closed form."""
    generator, network = (nn.Linear(2, 1, bias=False).double(), nn.Linear(1, 1, bias=False).double())
    generator.weight.data = torch.tensor([[slope, noise]]).double()
    network.weight.data = torch.tensor([[factor]]).double()
    return Pair(ImplicitModel(generator, 0, 1, 1), RecognitionGuide(network, num_codes=1, scale=scale))


def bound(pair, seed=0):
    """L_I of each of many draws, by the code's name."""
    torch.manual_seed(seed)
    return information_bound(pair, pair.simulation(Batch(torch.zeros(DRAWS, 1).double()), learning=True))


def error(draws):
    return (draws.std() / len(draws) ** 0.5).item()


def log_joint():
    """log p(c, x) on a grid of x, (3, grid), and the step of the grid."""
    x = torch.linspace(-8, 8, 4001).double()
    return dist.Normal(LOCS.unsqueeze(1), NOISE).log_prob(x) - math.log(3), (x[1] - x[0]).item(), x


def exact_information():
    joint, step, _ = log_joint()
    ratio = joint - joint.logsumexp(0) + math.log(3)
    return (joint.exp() * ratio).sum().item() * step


def test_bound_with_the_exact_posterior_is_the_mutual_information():
    found = bound(mixture())["c"].detach()
    assert 0.3 < exact_information() < math.log(3)
    assert found.mean().item() == pytest.approx(exact_information(), abs=4 * error(found))


def test_bound_with_another_guide_is_lower_by_the_mean_kl():
    """Both guides read the same draws. The difference is E KL(p(c | x) || q(c | x))."""
    right, wrong = (bound(mixture(temperature))["c"].detach() for temperature in (1.0, 3.0))
    joint, step, x = log_joint()
    posterior = joint - joint.logsumexp(0)
    with torch.no_grad():
        q = mixture(3.0).guide.network(x.unsqueeze(1)).log_softmax(-1).T
    kl = (joint.exp() * (posterior - q)).sum().item() * step
    lower = right - wrong
    assert kl > 10 * error(lower)
    assert lower.mean().item() == pytest.approx(kl, abs=4 * error(lower))


def test_bound_of_a_continuous_code_is_its_closed_form():
    """E (k - a x)^2 = (1 - a w)^2 / 3 + a^2 s^2, and H(k) = log 2."""
    found = bound(line())["k"].detach()
    squared = (1 - 0.9 * 0.8) ** 2 / 3 + (0.9 * 0.3) ** 2
    expected = math.log(2) - math.log(0.5 * math.sqrt(2 * math.pi)) - squared / (2 * 0.5**2)
    assert found.mean().item() == pytest.approx(expected, abs=4 * error(found))


def test_gradient_of_the_bound_reaches_generator_and_guide():
    """dL/dw = a (1 - a w) / (3 scale^2), dL/da = (w (1 - a w) / 3 - a s^2) / scale^2, dL/ds = - a^2 s / scale^2."""
    pair = line()
    slopes = []
    for seed in range(20):
        generator, network = pair.model.generator.weight, pair.guide.network.weight
        grads = torch.autograd.grad(bound(pair, seed)["k"].mean(), (generator, network))
        slopes.append(torch.cat([gradient.flatten() for gradient in grads]))
    slopes = torch.stack(slopes)
    w, s, a = 0.8, 0.3, 0.9
    expected = torch.tensor([a * (1 - a * w) / 3, -(a**2) * s, w * (1 - a * w) / 3 - a * s**2]).double() / 0.25
    errors = slopes.std(0) / 20**0.5
    assert (errors < 0.1 * expected.abs()).all()
    assert ((slopes.mean(0) - expected).abs() < 4 * errors).all()


def test_gradient_of_the_bound_reaches_the_first_layer_of_the_generator():
    torch.manual_seed(0)
    model = ImplicitModel(MLP(3 + 2 + 4, [16, 16], (4, 4)), 3, 2, 4)
    pair = Pair(model, RecognitionGuide(MLP((4, 4), [16], 5), 3, 2))
    found = pair.simulation(Batch(torch.zeros(64, 4, 4)), learning=True)
    for part in information_bound(pair, found).values():
        (gradient,) = torch.autograd.grad(part.mean(), model.generator.layers[0].weight, retain_graph=True)
        assert gradient.abs().sum(0).min() > 0  # from every code, and from the noise


def test_minus_the_bound_is_the_loss_of_forward_kl_less_the_entropy_of_the_prior():
    pair = mixture()
    found = bound(pair)["c"].mean()
    torch.manual_seed(0)
    loss = ppvae.ForwardKL().differentiable_loss(pair.model, pair.guide, torch.zeros(DRAWS, 1).double()) / DRAWS
    torch.testing.assert_close(-found, loss - math.log(3))


class Learned(ppvae.Guide):
    """q(k | x) with a learned standard deviation, one for all or of each datum."""

    def __init__(self, family):
        super().__init__()
        self.family, self.network = family, nn.Linear(1, 2).double()

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            loc, log_scale = self.network(x).chunk(2, -1)
            pyro.sample("k", self.family(loc, log_scale.exp()).to_event(1))


@pytest.mark.parametrize("family", [dist.Normal, dist.Laplace, dist.Cauchy])
def test_a_learned_standard_deviation_is_refused(family):
    pair = Pair(line().model, Learned(family))
    with pytest.raises(ppvae.ContractError, match=r"a fixed standard deviation of q\(k \| x\), got one"):
        bound(pair)


class Flow(ppvae.Model):
    """A code with a prior without a closed-form entropy."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            base = dist.Normal(x.new_zeros(1), 1.0)
            prior = dist.TransformedDistribution(base, [torch.distributions.transforms.TanhTransform()])
            k = pyro.sample("k", prior.to_event(1))
            pyro.sample("x", ppvae.distributions.Implicit(k, 1), obs=x)


def test_a_prior_without_a_closed_form_entropy_is_refused():
    with pytest.raises(ppvae.ContractError, match="a prior of the code 'k' with a closed-form entropy"):
        bound(Pair(Flow(), line().guide))


def test_a_guide_that_is_zero_where_the_prior_is_not_is_refused():
    class Narrow(ppvae.Guide):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                pyro.sample("k", dist.Uniform(x.new_zeros(1), 1.0).to_event(1))

    with pytest.raises(ppvae.ContractError, match=r"q\(k \| x\) to be a density over the whole space of the prior"):
        bound(Pair(line().model, Narrow()))
