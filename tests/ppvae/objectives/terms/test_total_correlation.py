"""Total correlation by a critic and from the batch, against the closed form of Gaussians."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import ppvae
import ppvae.models
from ppvae.engine.batch import as_batch
from ppvae.engine.player import Turn
from ppvae.guides import FullRankGaussian, MeanFieldGaussian
from ppvae.nn import MLP
from ppvae.objectives.terms.total_correlation import permuted
from tests.catalogue import LABELS, PAIRS, linear_gaussian
from tests.ppvae.objectives.estimates import particles_of


def covariance(dim: int) -> torch.Tensor:
    """Unit variances, correlation 0.6 of neighbours, 0.36 of their neighbours and so on."""
    index = torch.arange(dim)
    return 0.6 ** (index - index.unsqueeze(1)).abs().double()


def total_correlation(matrix: torch.Tensor) -> float:
    """Of a Gaussian: sum_d log sd_d - 1/2 log det."""
    return 0.5 * (matrix.diagonal().log().sum() - matrix.logdet()).item()


@pytest.mark.parametrize("dim", [6, 10])
def test_train_critic_finds_the_total_correlation_of_a_gaussian_within_a_tenth(dim):
    torch.manual_seed(0)
    training, fresh = torch.randn(2, 200_000, dim) @ torch.linalg.cholesky(covariance(dim)).float().T
    state = torch.get_rng_state()
    critic = ppvae.train_critic(training, num_steps=1500)
    assert torch.equal(torch.get_rng_state(), state)
    exact = total_correlation(covariance(dim))
    assert exact > 1
    assert abs(critic.log_ratio(fresh).mean().item() - exact) < 0.1 * exact


def test_train_critic_depends_on_its_seed_alone():
    z = torch.randn(100, 3)
    torch.manual_seed(3)
    one = ppvae.train_critic(z, num_steps=5)
    torch.manual_seed(4)
    same, other = (ppvae.train_critic(z, num_steps=5, seed=seed) for seed in (0, 1))
    assert torch.equal(one.log_ratio(z), same.log_ratio(z))
    assert not torch.equal(one.log_ratio(z), other.log_ratio(z))


def test_permuted_keeps_each_marginal_and_removes_the_dependence():
    z = (torch.randn(5000, 3) @ torch.linalg.cholesky(covariance(3)).float().T).double()
    other = permuted(z)
    torch.testing.assert_close(other.sort(0)[0], z.sort(0)[0])
    correlation = other.T.corrcoef() - torch.eye(3)
    assert correlation.abs().max() < 4 / 5000**0.5


class Columns(nn.Module):
    """The mean of q is x, its standard deviation s."""

    def __init__(self, scale: float):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def forward(self, x):
        return torch.cat([x, self.log_scale.expand_as(x)], -1)


def gaussian_aggregate(rows: int, dim: int = 3, variance: float = 0.3):
    """A pair whose q(z) is N(0, covariance) up to the choice of ``rows`` data."""
    torch.manual_seed(1)
    factor = torch.linalg.cholesky(covariance(dim) - variance * torch.eye(dim))
    x = torch.randn(rows, dim).double() @ factor.T
    model = ppvae.models.LinearGaussian(torch.eye(dim), torch.zeros(dim), scale=1.0).double()
    return model, MeanFieldGaussian(Columns(variance**0.5)).double(), x


def test_decomposition_of_the_whole_set_as_one_batch_is_the_closed_form():
    model, guide, x = gaussian_aggregate(3000)
    term = ppvae.TCDecomposition(num_data=3000)
    information, dependence, dimension_wise = (part[0] for part in term.decompose(ppvae.draw(model, guide, x)))
    error = dependence.std() / len(x) ** 0.5
    # The mixture of 3,000 stands for the Gaussian up to its own sampling error, which is that of the covariance.
    assert (dependence.mean() - total_correlation(covariance(3))).abs() < 4 * error + 4 / len(x) ** 0.5
    exact = 0.5 * (covariance(3).logdet() - 3 * torch.tensor(0.3).log())
    assert (information.mean() - exact).abs() < 4 * information.std() / len(x) ** 0.5 + 4 / len(x) ** 0.5
    assert dimension_wise.mean().abs() < 0.05  # unit variances


@pytest.mark.parametrize("stratified_sampling", [True, False])
def test_decomposition_adds_up_to_the_sampled_rate(stratified_sampling):
    model, guide, x = gaussian_aggregate(20)
    particles = ppvae.draw(model, guide, x, num_particles=3)
    parts = ppvae.TCDecomposition(500, stratified_sampling=stratified_sampling).decompose(particles)
    torch.testing.assert_close(sum(parts), particles.guide["z"].log_prob - particles.model["z"].log_prob)


@pytest.mark.parametrize("bound", [ppvae.ELBO(2), ppvae.ELBO(2, analytic_kl=False), ppvae.StickingTheLanding(2)])
def test_decomposition_with_weights_of_one_is_the_rate_of_its_objective(bound):
    """The mutual information takes the objective's own rate, in closed form or not."""
    model, guide, x = gaussian_aggregate(20)
    particles = ppvae.draw(model, guide, x, num_particles=2)
    with_term = bound + ppvae.TCDecomposition(500, 1.0, 1.0, 1.0)
    torch.testing.assert_close(with_term.per_datum(particles), bound.per_datum(particles))
    assert with_term.parts(particles).keys() == {
        "distortion",
        "mutual_information/z",
        "total_correlation/z",
        "dimension_kl/z",
    }


def test_decomposition_with_equal_weights_is_a_beta_vae():
    model, guide, x = gaussian_aggregate(20)
    particles = ppvae.draw(model, guide, x, num_particles=2)
    bound = ppvae.ELBO(2, analytic_kl=False)
    ours = (bound + ppvae.TCDecomposition(500, 3.0, 3.0, 3.0)).per_datum(particles)
    torch.testing.assert_close(ours, (bound + ppvae.KLWeight(3.0)).per_datum(particles))


def test_decomposition_weighs_each_part_by_its_own():
    particles = particles_of()
    term = ppvae.TCDecomposition(100, alpha=0.5, beta=6.0, gamma=2.0)
    information, correlation, dimension_wise = (part.mean(0) for part in term.decompose(particles))
    sampled = ppvae.ELBO(2, analytic_kl=False)
    parts = (sampled + term).parts(particles)
    torch.testing.assert_close(parts["mutual_information/z"], 0.5 * information)
    torch.testing.assert_close(parts["total_correlation/z"], 6 * correlation)
    torch.testing.assert_close(parts["dimension_kl/z"], 2 * dimension_wise)


def test_decomposition_of_one_site_leaves_the_rates_of_the_others():
    particles = particles_of("label", y=LABELS)
    parts = (ppvae.ELBO() + ppvae.TCDecomposition(100)).parts(particles)
    assert {"rate/y", "mutual_information/z"} < parts.keys()
    assert "rate/z" not in parts


def test_decomposition_refuses_a_guide_that_is_no_product_and_a_critic_takes_any():
    model, guide, x = PAIRS["flow_planar"].make()
    particles = ppvae.draw(model, guide, x)
    assert torch.isfinite(ppvae.TotalCorrelation(1.0, latent_dim=2).penalty(particles)).all()
    for other in (guide, FullRankGaussian(MLP(5, [], 5), 2).double()):
        with pytest.raises(ppvae.ContractError, match=r"product of densities.*use MeanFieldGaussian"):
            ppvae.TCDecomposition(10).decompose(ppvae.draw(linear_gaussian().double(), other, x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ppvae.TCDecomposition(1), "num_data of at least 2, got 1"),
        (lambda: ppvae.TCDecomposition(10, beta=-1.0), "beta of at least 0"),
        (lambda: ppvae.TotalCorrelation(-1.0), "gamma of at least 0"),
        (lambda: ppvae.train_critic(torch.zeros(1, 3)), r"at least 2, got \(1, 3\)"),
        (lambda: ppvae.train_critic(torch.full((9, 3), math.nan)), "finite draws"),
    ],
)
def test_terms_of_the_total_correlation_refuse_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_decomposition_takes_numpys_number_of_data_and_no_fraction():
    assert ppvae.beta_tcvae(np.int64(60)).regularisers[0].num_data == 60
    with pytest.raises(TypeError, match="integer"):
        ppvae.beta_tcvae(60.0)


def test_total_correlation_is_the_weighted_output_of_its_critic():
    particles = particles_of()
    term = ppvae.TotalCorrelation(2.5, latent_dim=3)
    ratio = term.critic.network(particles.guide["z"].value.float()).squeeze(-1)
    torch.testing.assert_close(term.penalty(particles), 2.5 * ratio.mean(0))
    assert ratio.abs().min() > 0


def test_total_correlation_gives_the_pair_a_gradient_and_its_critic_none():
    model, guide, x = PAIRS["gaussian_vae"].make()
    term = ppvae.TotalCorrelation(2.0, latent_dim=3)
    term.penalty(ppvae.draw(model, guide, x)).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in guide.parameters())
    assert all(p.grad is None and p.requires_grad for p in term.critic.parameters())


def test_permutation_critic_gives_itself_a_gradient_and_the_pair_none():
    model, guide, x = PAIRS["gaussian_vae"].make()
    term = ppvae.TotalCorrelation(2.0, latent_dim=3)
    particles = ppvae.draw(model, guide, x)
    other = particles.source.draws_for(as_batch(x.flip(0)))
    term.critic.loss(Turn([], particles=[particles], other_draws=[other])).backward()
    assert all(p.grad is None for module in (model, guide) for p in module.parameters())
    assert all(p.grad.abs().sum() > 0 for p in term.critic.parameters())


def test_permutation_critic_counts_the_rows_of_all_parts_of_a_step_alike():
    model, guide, x = PAIRS["gaussian_vae"].make()
    particles = [ppvae.draw(model, guide, part) for part in x.split((4, 2))]
    other = [part.source.draws_for(as_batch(part.batch.x.flip(0))) for part in particles]
    critic = ppvae.TotalCorrelation(1.0, latent_dim=3).critic
    torch.manual_seed(0)
    loss = critic.loss(Turn([], particles=particles, other_draws=other))
    torch.manual_seed(0)
    z = torch.cat([part.guide["z"].value[0] for part in particles])
    shuffled = permuted(torch.cat([draw["z"][0] for draw in other]))
    on_z, on_shuffled = (critic.network(v.float().detach()).squeeze(-1) for v in (z, shuffled))
    softplus = torch.nn.functional.softplus
    torch.testing.assert_close(loss, (softplus(-on_z).mean() + softplus(on_shuffled).mean()) / 2)
