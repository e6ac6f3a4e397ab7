"""The conditional VAE: its log joint density by hand, and its evidence where everything is linear and Gaussian."""

import pytest
import torch
from pyro import distributions as dist
from pyro import poutine

import ppvae
from ppvae.distributions.likelihoods import Gaussian
from ppvae.guides import FullRankGaussian, MeanFieldGaussian
from ppvae.models import ConditionalVAE
from ppvae.nn import MLP, JointMLP, LabelledLinear, LabelledMLP
from tests.catalogue import ALL_PAIRS

SIZE, CONDITION, LATENT, NOISE = 5, 3, 2, 0.7


def linear(prior=True):
    """x = W z + V c + b + noise, z ~ N(A c + a, diag(exp(d))^2), or N(0, I)."""
    torch.manual_seed(0)
    network = MLP(CONDITION, [], 2 * LATENT) if prior else None
    model = ConditionalVAE(JointMLP([LATENT, CONDITION], [], SIZE), LATENT, "c", Gaussian(NOISE), network).double()
    if prior:
        with torch.no_grad():
            model.prior.layers[0].weight[LATENT:] = 0  # one scale for all conditions
    return model


def parts(model, c):
    """Mean (B, D) and covariance of z, W, and the mean of x at z = 0."""
    first = model.decoder.first
    loc, covariance = c.new_zeros(len(c), LATENT), torch.eye(LATENT).to(c)
    if model.prior is not None:
        loc, log_scale = model.prior(c).chunk(2, -1)
        covariance = (2 * log_scale[0]).exp().diag()
    return loc, covariance, first[0].weight, c @ first[1].weight.T + first[0].bias


def evidence(model, x, c):
    """log p(x | c), exact."""
    loc, covariance, weight, offset = parts(model, c)
    noise = NOISE**2 * torch.eye(SIZE).to(x)
    return dist.MultivariateNormal(loc @ weight.T + offset, weight @ covariance @ weight.T + noise).log_prob(x)


def exact_guide(model):
    """p(z | x, c), which a linear encoder of x and c holds: mean P^-1 (S^-1 m(c) + W'(x - o(c)) / s^2)."""
    guide = FullRankGaussian(JointMLP([SIZE, CONDITION], [], FullRankGaussian.num_features(LATENT)), LATENT, "c")
    zero = torch.zeros(1, CONDITION).double()
    loc, covariance, weight, offset = parts(model, zero)
    posterior = (covariance.inverse() + weight.T @ weight / NOISE**2).inverse()
    tril = torch.linalg.cholesky(posterior)
    of_x = posterior @ weight.T / NOISE**2
    rows, columns = torch.tril_indices(LATENT, LATENT, -1)
    with torch.no_grad():
        first = guide.double().encoder.first
        for parameter in first.parameters():
            parameter.zero_()
        first[0].weight[:LATENT] = of_x
        of_prior = (
            0 if model.prior is None else posterior @ covariance.inverse() @ model.prior.layers[0].weight[:LATENT]
        )
        first[1].weight[:LATENT] = of_prior - of_x @ model.decoder.first[1].weight
        mean = loc[0] @ (posterior @ covariance.inverse()).T - of_x @ offset[0]
        first[0].bias.copy_(torch.cat([mean, tril.diagonal().log(), tril[rows, columns]]))
    return guide


def data(rows=6):
    torch.manual_seed(1)
    return ppvae.Dataset(2 * torch.randn(rows, SIZE).double(), c=torch.randn(rows, CONDITION).double())


@pytest.mark.parametrize("prior", [True, False])
def test_log_marginal_of_a_linear_pair_is_the_gaussian_density_given_the_condition(prior):
    model, rows = linear(prior), data()
    exact = evidence(model, rows.x, rows.given["c"]).detach()
    found = ppvae.log_marginal(model, exact_guide(model), rows, num_particles=3)
    torch.testing.assert_close(found.value, exact)
    assert found.quantity == "log p(x | c)"
    rough = MeanFieldGaussian(JointMLP([SIZE, CONDITION], [], 2 * LATENT), "c").double()
    found = ppvae.log_marginal(model, rough, rows, num_particles=4000)
    assert ((found.value - exact).abs() < 4 * found.standard_error).all()


def test_elbo_of_the_exact_posterior_is_the_evidence():
    model, rows = linear(), data()
    exact = evidence(model, rows.x, rows.given["c"]).mean().item()
    loss = ppvae.evaluate_loss(ppvae.ELBO(analytic_kl=False), model, exact_guide(model), rows)
    assert -loss == pytest.approx(exact)


def test_draws_have_the_moments_of_the_density_given_the_condition():
    model, one = linear(), data(1).given["c"]
    loc, covariance, weight, offset = (each.detach() for each in parts(model, one))
    x = ppvae.sample(model, 20_000, c=one.expand(20_000, -1))
    expected = weight @ covariance @ weight.T + NOISE**2 * torch.eye(SIZE).double()
    error = (expected.diagonal() / len(x)).sqrt()
    assert ((x.mean(0) - (loc @ weight.T + offset)[0]).abs() < 4.5 * error).all()
    scale = (expected.diagonal().outer(expected.diagonal()) + expected.square()) / len(x)
    assert ((x.T.cov() - expected).abs() < 4.5 * scale.sqrt()).all()


def test_log_joint_is_that_of_the_prior_network_and_the_decoder():
    model, _, batch = ALL_PAIRS["conditional_vae"].make_batch()
    z, angle = torch.randn(len(batch), model.latent_dim).double(), batch.given["angle"]
    loc, log_scale = model.prior(angle).chunk(2, -1)
    probs = model.decoder(z, angle).sigmoid()
    expected = dist.Normal(loc, log_scale.exp()).log_prob(z).sum()
    expected = expected + (batch.x * probs.log() + (1 - batch.x) * (1 - probs).log()).sum()
    traced = poutine.trace(poutine.condition(model, {"z": z})).get_trace(batch.x, angle=angle)
    torch.testing.assert_close(traced.log_prob_sum(), expected)


def test_class_conditional_model_has_no_site_of_the_label_and_gives_log_p_x_given_y():
    model, guide, batch = ALL_PAIRS["class_conditional"].make_batch()
    traced = poutine.trace(model).get_trace(batch.x, batch.y)
    assert (traced.stochastic_nodes, traced.observation_nodes) == (["data", "z"], ["x"])
    assert ppvae.log_marginal(model, guide, batch, num_particles=30).quantity == "log p(x | y)"
    other = ppvae.Batch(batch.x, (batch.y + 1) % 4, all_known=True)
    assert not torch.allclose(ppvae.features(guide, batch), ppvae.features(guide, other))


def test_decode_takes_several_conditions_in_their_order():
    torch.manual_seed(0)
    model = ConditionalVAE(JointMLP([LATENT, 1, CONDITION], [8], (2, 4)), LATENT, ["a", "c"])
    z, a, c = torch.randn(7, 4, LATENT), torch.randn(4, 1), torch.randn(4, CONDITION)
    decoded = model.decode(z, a, c, event_dim=2)
    assert (decoded.batch_shape, decoded.event_shape) == ((7, 4), (2, 4))
    torch.testing.assert_close(decoded.mean[3, 2], model.decode(z[3, 2], a[2], c[2], event_dim=2).mean)


def test_model_without_a_condition_is_refused():
    with pytest.raises(ValueError, match=r"expected the name of a condition, got none; GaussianVAE"):
        ConditionalVAE(LabelledMLP(LATENT, 3, [8], 4), LATENT, ())


def test_log_marginal_of_a_class_conditional_model_is_its_evidence_given_the_class():
    """x = W z + v_y + b + noise: log p(x | y) is a Gaussian density with a mean for each class."""
    torch.manual_seed(0)
    decoder = LabelledLinear(LATENT, 3, SIZE)
    model = ConditionalVAE(decoder, LATENT, "y", Gaussian(NOISE)).double()
    guide = MeanFieldGaussian(LabelledMLP(SIZE, 3, [8], 2 * LATENT), "y").double()
    x, y = torch.randn(5, SIZE).double(), torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        offset = decoder(torch.zeros(5, LATENT).double(), y)
        weight = torch.stack([decoder(unit.expand(5, -1), y)[0] for unit in torch.eye(LATENT).double()], 1)
        weight -= offset[0].unsqueeze(-1)
    covariance = weight @ weight.T + NOISE**2 * torch.eye(SIZE).double()
    exact = dist.MultivariateNormal(offset, covariance).log_prob(x)
    found = ppvae.log_marginal(model, guide, x, y, num_particles=5000)
    assert found.is_reliable
    assert ((found.value - exact).abs() <= 4 * found.standard_error).all()


def test_prior_network_of_another_length_is_refused():
    model = ConditionalVAE(JointMLP([7, 3], [], SIZE), 7, "c", prior=MLP(3, [], 6))
    with pytest.raises(ppvae.ContractError, match=r"prior network of 2 \* 7 features.*got 6"):
        ppvae.sample(model, 2, c=torch.zeros(2, 3))
