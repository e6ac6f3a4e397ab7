"""Gradient estimators: the right mean, the stated bias, and the traps of stock Pyro that they replace."""

import pyro
import pytest
import torch
from ppvae.guides import MeanFieldGaussian
from pyro import distributions as dist
from pyro.distributions.testing import fakes
from torch import nn

import ppvae
from ppvae.contract import Guide
from ppvae.nn import MLP
from tests.catalogue import LABELS, PAIRS
from tests.ppvae.oracles import Exact, gaussian_mixture, linear_gaussian, nearly_exact

NEEDS_SCORE = [ppvae.StickingTheLanding(), ppvae.DReG(2), ppvae.ReweightedWakeSleep(2), ppvae.ForwardKL()]


def gradient(objective, model, guide, x, y=None, of=None, seed=0):
    """The gradient of the summed loss by the guide's parameters (or those of ``of``), as one vector."""
    torch.manual_seed(seed)
    parameters = [p for p in (of or guide).parameters() if p.requires_grad]
    loss = objective.differentiable_loss(model, guide, x, y)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat([(p * 0 if g is None else g).flatten() for g, p in zip(gradients, parameters, strict=True)])


def gradients(objective, model, guide, x, y=None, of=None, repeats=150):
    return torch.stack([gradient(objective, model, guide, x, y, of, seed) for seed in range(repeats)])


def assert_same_mean(a, b, deviations=5.0):
    """Of two independent samples of vectors, one a row; 5 deviations for about a hundred coordinates."""
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() <= deviations * error + 1e-12).all()


def loss(objective, model, guide, x, y=None):
    torch.manual_seed(0)
    return objective.per_datum(ppvae.draw(model, guide, x, y, objective.num_particles))


class Rows(Guide):
    """A free mean-field Gaussian for each datum."""

    def __init__(self, loc, scale):
        super().__init__()
        self.loc, self.log_scale = nn.Parameter(loc.clone()), nn.Parameter(scale.log())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc, self.log_scale.exp()).to_event(1))


def rows(repeats=4000):
    """One datum many times, each with parameters of its own: the gradient's rows are independent samples."""
    model, x = linear_gaussian()
    posterior = model.posterior(x[:1])
    loc = (posterior.mean + 0.4).expand(repeats, -1)
    scale = (posterior.stddev * 1.3).expand(repeats, -1)
    return model, Rows(loc.detach(), scale.detach()), x[:1].expand(repeats, -1)


def exact_elbo_gradient(model, guide, x):
    """By the closed form of E_q [log p(x | z)] in a linear-Gaussian model."""
    scale = guide.log_scale.exp()
    residual = (x - guide.loc @ model.weight.T - model.bias).square().sum(-1)
    spread = (scale.square() @ model.weight.square().T).sum(-1)
    likelihood = -(residual + spread) / (2 * (2 * model.log_scale).exp())
    kl = 0.5 * (guide.loc.square() + scale.square() - 1 - 2 * guide.log_scale).sum(-1)
    return torch.cat(torch.autograd.grad((kl - likelihood).sum(), [guide.loc, guide.log_scale]), -1)


def per_row(objective, model, guide, x):
    torch.manual_seed(0)
    return torch.cat(torch.autograd.grad(objective.differentiable_loss(model, guide, x), [*guide.parameters()]), -1)


@pytest.mark.parametrize(
    "objective", [ppvae.ELBO(), ppvae.ELBO(2, analytic_kl=False), ppvae.StickingTheLanding(2), ppvae.DReG(1)]
)
def test_the_elbos_gradient_against_the_closed_form(objective):
    model, guide, x = rows()
    sample = per_row(objective, model, guide, x)
    exact = exact_elbo_gradient(model, guide, x)[0]
    assert ((sample.mean(0) - exact).abs() < 4 * sample.std(0) / len(x) ** 0.5).all()
    assert sample.std(0).min() > 0


@pytest.mark.parametrize("k", [2, 16])
def test_dreg_has_the_mean_of_iwaes_gradient_and_less_noise(k):
    model, guide, x = rows(20_000)
    iwae, dreg = per_row(ppvae.IWAE(k), model, guide, x), per_row(ppvae.DReG(k), model, guide, x)
    assert_same_mean(iwae, dreg, deviations=4)
    assert (dreg.var(0) < iwae.var(0)).all()


@pytest.mark.parametrize("pair", ["label_style", "label", "user"])
def test_dreg_has_the_mean_of_iwaes_gradient_with_classes_and_with_two_latents(pair):
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    y = LABELS if PAIRS[pair].labelled else None
    assert_same_mean(*(gradients(objective, model, guide, x, y) for objective in (ppvae.IWAE(3), ppvae.DReG(3))))


@pytest.mark.parametrize("pair", ["label_style", "user"])
def test_sticking_the_landing_has_the_mean_of_the_elbos_gradient(pair):
    model, guide, x = PAIRS[pair].make()
    y = LABELS if PAIRS[pair].labelled else None
    plain = gradients(ppvae.ELBO(analytic_kl=False), model, guide, x, y)
    assert_same_mean(plain, gradients(ppvae.StickingTheLanding(), model, guide, x, y))


@pytest.mark.parametrize(
    ("ours", "same"),
    [
        (ppvae.DReG(5), ppvae.IWAE(5)),
        (ppvae.ReweightedWakeSleep(5), ppvae.IWAE(5)),
        (ppvae.ReweightedWakeSleep(5, insomnia=0.5), ppvae.IWAE(5)),
        (ppvae.Renyi(0.0, 5), ppvae.IWAE(5)),
        (ppvae.StickingTheLanding(5), ppvae.ELBO(5, analytic_kl=False)),
    ],
)
@pytest.mark.parametrize("pair", ["label_style", "label", "user", "gaussian_vae", "mixture"])
def test_value_and_model_gradient_are_those_of_the_bound(pair, ours, same):
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    y = LABELS if PAIRS[pair].labelled else None
    torch.testing.assert_close(loss(ours, model, guide, x, y), loss(same, model, guide, x, y))
    torch.testing.assert_close(
        gradient(ours, model, guide, x, y, of=model), gradient(same, model, guide, x, y, of=model)
    )


def test_sticking_the_landing_is_silent_at_the_exact_posterior_and_pyros_elbo_is_not():
    model, guide, x = rows(500)
    variance = (2 * model.log_scale).exp()
    with torch.no_grad():  # orthogonal loadings, so that the posterior is diagonal
        model.weight.copy_(torch.linalg.qr(model.weight)[0])
        posterior = model.posterior(x)
        guide.loc.copy_(posterior.mean)
        guide.log_scale.copy_(posterior.stddev.log())
    torch.testing.assert_close(posterior.covariance_matrix[0], (variance / (1 + variance)) * torch.eye(2).double())
    for objective in (ppvae.StickingTheLanding(3), ppvae.DReG(3)):
        assert per_row(objective, model, guide, x).abs().max() < 1e-9
    for objective in (ppvae.ELBO(analytic_kl=False), pyro.infer.Trace_ELBO()):
        pyro.clear_param_store()
        torch.manual_seed(0)
        surrogate = objective.differentiable_loss(model, guide, x)
        assert torch.autograd.grad(surrogate, guide.log_scale)[0].std() > 0.5


def test_the_wake_update_follows_the_posterior_and_its_bias_falls_with_k():
    model, guide, x = rows(2000)
    posterior = model.posterior(x)
    q = dist.Normal(guide.loc, guide.log_scale.exp())
    # - E_p [d log q / d phi], the gradient of the forward KL, in closed form
    shift = (posterior.mean - guide.loc) / q.scale.square()
    square = (posterior.variance + (posterior.mean - guide.loc).square()) / q.scale.square()
    exact = torch.cat([-shift, 1 - square], -1).detach()[0]
    distance = []
    for k in (2, 20, 400):
        sample = per_row(ppvae.ReweightedWakeSleep(k), model, guide, x)
        distance.append((sample.mean(0) - exact).abs().max())
    error = sample.std(0) / len(x) ** 0.5
    assert distance[0] > distance[1] > distance[2]
    assert distance[0] > 0.2
    assert ((sample.mean(0) - exact).abs() < 4 * error + 0.02).all()


def test_the_sleep_update_is_silent_on_average_at_the_exact_posterior():
    model, _ = linear_gaussian()
    guide = nearly_exact(model, widen=1.0)  # the exact mean; the marginal scales, which minimise the forward KL
    x = torch.zeros(3000, 5).double()
    with torch.no_grad():  # the best diagonal q in forward KL has the posterior's marginals
        posterior = model.posterior(x[:1])
    torch.testing.assert_close(guide.encoder(x[:1])[..., 2:].exp(), posterior.stddev)
    sample = gradients(ppvae.ForwardKL(), model, guide, x, repeats=60)
    assert (sample.mean(0).abs() < 4 * sample.std(0) / 60**0.5).all()
    entropy = torch.distributions.Normal(0.0, posterior.stddev).entropy().sum()
    cross = loss(ppvae.ForwardKL(), model, guide, x)
    assert (cross.mean() - entropy).abs() < 4 * cross.std() / len(x) ** 0.5


def test_every_estimators_bound_is_the_evidence_at_the_exact_posterior():
    model, x = linear_gaussian()
    for objective in (ppvae.StickingTheLanding(3), ppvae.DReG(3), ppvae.Renyi(-1.0, 3), ppvae.ReweightedWakeSleep(3)):
        torch.testing.assert_close(-loss(objective, model, Exact(model), x), model.log_evidence(x))


def test_renyi_falls_with_alpha_between_its_limits():
    model, guide, x = PAIRS["linear_gaussian"].make()
    alphas = [-float("inf"), -50.0, -1.0, 0.0, 0.5, 2.0, 50.0, float("inf")]
    bounds = torch.stack([-loss(ppvae.Renyi(alpha, 6), model, guide, x) for alpha in alphas])
    assert (bounds.diff(dim=0) < 0).all()
    torch.manual_seed(0)
    log_weight = ppvae.draw(model, guide, x, num_particles=6).log_weight
    torch.testing.assert_close(bounds[0], log_weight.amax(0))
    torch.testing.assert_close(bounds[-1], log_weight.amin(0))
    model, x = linear_gaussian()
    near_one = loss(ppvae.Renyi(1 - 1e-6, 6), model, nearly_exact(model), x)
    elbo = loss(ppvae.ELBO(6, analytic_kl=False), model, nearly_exact(model), x)
    torch.testing.assert_close(near_one, elbo, rtol=0, atol=1e-5)


def test_renyi_at_one_is_refused():
    with pytest.raises(ValueError, match=r"alpha other than 1.*ELBO"):
        ppvae.Renyi(1.0)


def test_discrete_sites_are_summed_inside_the_weight_where_stock_renyi_gives_no_gradient():
    model, x = gaussian_mixture()
    for alpha in (-2.0, 0.0, 3.0):
        bound = -loss(ppvae.Renyi(alpha, 3), model, Exact(model), x)
        torch.testing.assert_close(bound, model.log_evidence(x))
    label_model, label_guide, images = PAIRS["label_style"].make()
    ours = gradient(ppvae.Renyi(0.5, 3), label_model, label_guide, images, of=label_guide.encoder)
    assert ours.abs().max() > 0


def test_weights_are_normalised_for_each_datum_where_stock_wake_sleep_has_one_weight_for_the_batch():
    model, x = linear_gaussian()
    guide = PAIRS["linear_gaussian"].guide().double()
    whole = ppvae.ReweightedWakeSleep(50)
    values = loss(whole, model, guide, x.repeat(500, 1)).reshape(500, 4)
    error = values.std(0) / 500**0.5
    single = torch.cat([loss(whole, model, guide, x[i : i + 1].repeat(500, 1)).mean()[None] for i in range(4)])
    assert ((values.mean(0) - single).abs() < 6 * error).all()
    pyro.clear_param_store()
    stock = pyro.infer.ReweightedWakeSleep(num_particles=50, vectorize_particles=True, max_plate_nesting=1)
    wake_theta, _ = stock.loss(model, guide, x)
    assert wake_theta > loss(whole, model, guide, x).sum() + 0.5  # a looser bound: one weight for four data


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
    for objective in (ppvae.ELBO(), ppvae.IWAE(2), ppvae.SemiSupervised(ppvae.DReG(2), 1.0)):
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


def test_renyi_close_to_one_keeps_its_digits_in_single_precision():
    model, x = linear_gaussian()
    guide = nearly_exact(model)
    exact = loss(ppvae.Renyi(1 - 1e-5, 50), model, guide, x)
    torch.manual_seed(0)
    particles = ppvae.draw(model, guide, x, num_particles=50)
    particles.__dict__["log_weight"] = particles.log_weight.float()
    torch.testing.assert_close(ppvae.Renyi(1 - 1e-5, 50).per_datum(particles).double(), exact, rtol=0, atol=1e-5)


def test_scoring_again_sees_the_same_noise_and_moves_no_statistics():
    torch.manual_seed(0)
    encoder = nn.Sequential(MLP(5, [8], 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    model, x = linear_gaussian()
    guide = MeanFieldGaussian(encoder).double()
    particles = ppvae.draw(model, guide, x, num_particles=3)
    assert guide.encoder[1].num_batches_tracked == 1
    state = torch.get_rng_state()
    for sites in (particles.frozen_guide(), particles.detached_guide()):
        torch.testing.assert_close(sites["z"].log_prob, particles.guide["z"].log_prob)
    assert guide.encoder[1].num_batches_tracked == 1
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.requires_grad for p in guide.parameters())


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
