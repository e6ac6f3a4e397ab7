"""What an objective cannot do is refused, in words."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.distributions.testing import fakes
from torch import nn

import ppvae
from ppvae.engine.contract import Guide
from tests.catalogue import OBJECTIVES, PAIRS
from tests.ppvae.objectives.estimates import gradient
from tests.ppvae.oracles import linear_gaussian

NEEDS_SCORE = [ppvae.StickingTheLanding(), ppvae.DReG(2), ppvae.ReweightedWakeSleep(2), ppvae.ForwardKL()]


@pytest.mark.parametrize("alpha", [1, 1.0, float("nan")])
def test_renyi_at_one_is_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha other than 1.*ELBO"):
        ppvae.Renyi(alpha)


@pytest.mark.parametrize("objective", NEEDS_SCORE, ids=lambda o: type(o).__name__)
def test_a_guide_that_cannot_score_is_refused(objective):
    model, guide, x = PAIRS["gaussian_vae"].make()
    guide.can_score = False
    with pytest.raises(ppvae.ContractError, match=r"can score.*MeanFieldGaussian.*use a guide with can_score"):
        objective.differentiable_loss(model, guide, x)
    ppvae.IWAE(2).differentiable_loss(model, guide, x).backward()


class ScoreFunction(Guide):
    """Draws that pass no gradient on."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(5, 2)

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", fakes.NonreparameterizedNormal(self.net(x), 1.0).to_event(1))


def test_draws_without_a_gradient_are_refused_where_the_guide_learns_by_them():
    model, x = linear_gaussian()
    guide = ScoreFunction().double()
    for objective in (ppvae.ELBO(), ppvae.IWAE(2), ppvae.DReG(2) + ppvae.ClassifierLoss(1.0)):
        with pytest.raises(ppvae.ContractError, match=r"rsample.*'z'.*ReweightedWakeSleep"):
            objective.differentiable_loss(model, guide, x)
    assert gradient(ppvae.ReweightedWakeSleep(5), model, guide, x).abs().max() > 0
    assert gradient(ppvae.ForwardKL(), model, guide, x).abs().max() > 0
    for objective in (ppvae.ReweightedWakeSleep(5), pyro.infer.Trace_ELBO()):
        before = guide.net.weight.detach().clone()
        ppvae.fit(model, guide, objective, x, epochs=2, batch_size=2, progress=False)
        assert not torch.equal(before, guide.net.weight)
    assert torch.isfinite(ppvae.log_marginal(model, guide, x, num_particles=10).value).all()


def test_particles_are_weighed_once():
    model, guide, x = PAIRS["gaussian_vae"].make()
    particles = ppvae.draw(model, guide, x, num_particles=3)
    ppvae.DReG(3).per_datum(particles)
    with pytest.raises(ppvae.ContractError, match="draw anew"):
        ppvae.ReweightedWakeSleep(3).per_datum(particles)


def test_a_flow_that_hides_that_it_has_no_inverse_is_found_out():
    model, guide, x = PAIRS["flow_planar"].make()
    guide.can_score = True
    with pytest.raises(ppvae.ContractError, match="has no inverse"):
        ppvae.DReG(2).differentiable_loss(model, guide, x)


def test_a_single_particle_teaches_no_wake_update():
    with pytest.raises(ValueError, match="at least 2 particles"):
        ppvae.ReweightedWakeSleep(1)
    ppvae.ReweightedWakeSleep(1, insomnia=0.0)


def test_a_hidden_latent_below_the_classes_is_refused_by_dreg():
    class Mixed(Guide):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(5, 4)

        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                y = pyro.sample("y", dist.Categorical(logits=x.new_zeros(len(x), 3)))
                loc = self.net(x)
                pyro.sample("a", dist.Normal(loc[..., 0], 1.0))
                pyro.sample("b", dist.Normal(loc[..., 1] + y, 1.0))

    class Both(ppvae.Model):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                y = pyro.sample("y", dist.Categorical(logits=x.new_zeros(3)), obs=y)
                a = pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0))
                b = pyro.sample("b", dist.Normal(x.new_zeros(()), 1.0))
                pyro.sample("x", dist.Normal((a + b + y).unsqueeze(-1), x.new_ones(5)).to_event(1), obs=x)

    _, x = linear_gaussian()
    with pytest.raises(ppvae.ContractError, match="all drawn for the same enumerated sites"):
        ppvae.DReG(2).differentiable_loss(Both(), Mixed().double(), x)


class HiddenClass(ppvae.Model):
    """A discrete latent that the guide does not know of."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Categorical(logits=x.new_zeros(3)))
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal((z.sum(-1) + w).unsqueeze(-1), x.new_ones(5)).to_event(1), obs=x)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_discrete_model_site_that_nobody_enumerates_is_refused_by_name(objective):
    _, guide, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match=r"guide misses latent site\(s\) \['w'\]"):
        OBJECTIVES[objective].make().differentiable_loss(HiddenClass(), guide, x)


def test_a_latent_that_the_guide_invents_is_refused_by_name():
    model, _, x = PAIRS["linear_gaussian"].make()
    _, guide, _ = PAIRS["user"].make()
    with pytest.raises(ppvae.ContractError, match=r"misses latent site\(s\) \['z'\]"):
        ppvae.ELBO().loss(model, guide, x)

    class More(ppvae.Guide):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                for name in ("z", "more"):
                    pyro.sample(name, dist.Normal(x.new_zeros(2), 1.0).to_event(1))

    with pytest.raises(ppvae.ContractError, match=r"invents site\(s\) \['more'\]"):
        ppvae.ELBO().loss(model, More(), x)


@pytest.mark.parametrize(
    "make",
    [
        ppvae.ELBO,
        ppvae.StickingTheLanding,
        ppvae.IWAE,
        ppvae.DReG,
        lambda k: ppvae.Renyi(0.5, k),
        lambda k: ppvae.ReweightedWakeSleep(k, insomnia=0.0),
    ],
)
@pytest.mark.parametrize("k", [0, -3])
def test_fewer_particles_than_one_are_refused(make, k):
    with pytest.raises(ValueError, match=f"num_particles of at least 1, got {k}"):
        make(k)
