"""Total correlation by a critic and from the batch, against the closed form of Gaussians."""

import ppvae.models
import pytest
import torch
from ppvae.guides import FullRankGaussian, MeanFieldGaussian
from torch import nn

import ppvae
from ppvae.nn import MLP
from ppvae.objectives.terms.total_correlation import permuted
from tests.catalogue import PAIRS, linear_gaussian


def covariance(dim: int) -> torch.Tensor:
    """Unit variances, correlation 0.6 of neighbours, 0.36 of their neighbours and so on."""
    index = torch.arange(dim)
    return 0.6 ** (index - index.unsqueeze(1)).abs().double()


def total_correlation(matrix: torch.Tensor) -> float:
    """Of a Gaussian: sum_d log sd_d - 1/2 log det."""
    return 0.5 * (matrix.diagonal().log().sum() - matrix.logdet()).item()


@pytest.mark.parametrize("dim", [6, 10])
def test_the_critic_finds_the_total_correlation_of_a_gaussian_within_a_tenth(dim):
    torch.manual_seed(0)
    seen, fresh = torch.randn(2, 200_000, dim) @ torch.linalg.cholesky(covariance(dim)).float().T
    state = torch.get_rng_state()
    critic = ppvae.train_critic(seen, num_steps=1500)
    assert torch.equal(torch.get_rng_state(), state)
    exact = total_correlation(covariance(dim))
    assert exact > 1
    assert abs(critic.log_ratio(fresh).mean().item() - exact) < 0.1 * exact


def test_the_seed_alone_decides_what_a_critic_learns():
    z = torch.randn(100, 3)
    torch.manual_seed(3)
    one = ppvae.train_critic(z, num_steps=5)
    torch.manual_seed(4)
    same, other = (ppvae.train_critic(z, num_steps=5, seed=seed) for seed in (0, 1))
    assert torch.equal(one.log_ratio(z), same.log_ratio(z))
    assert not torch.equal(one.log_ratio(z), other.log_ratio(z))


def test_permuted_draws_keep_each_marginal_and_lose_what_ties_them():
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


def test_the_whole_set_as_one_batch_gives_the_closed_form():
    model, guide, x = gaussian_aggregate(3000)
    term = ppvae.TCDecomposition(num_data=3000)
    information, dependence, dimension_wise = (part[0] for part in term.parts(ppvae.draw(model, guide, x)))
    error = dependence.std() / len(x) ** 0.5
    # The mixture of 3,000 stands for the Gaussian up to its own sampling error, which is that of the covariance.
    assert (dependence.mean() - total_correlation(covariance(3))).abs() < 4 * error + 4 / len(x) ** 0.5
    exact = 0.5 * (covariance(3).logdet() - 3 * torch.tensor(0.3).log())
    assert (information.mean() - exact).abs() < 4 * information.std() / len(x) ** 0.5 + 4 / len(x) ** 0.5
    assert dimension_wise.mean().abs() < 0.05  # unit variances


@pytest.mark.parametrize("stratified_sampling", [True, False])
def test_the_parts_add_up_to_the_rate(stratified_sampling):
    model, guide, x = gaussian_aggregate(20)
    particles = ppvae.draw(model, guide, x, num_particles=3)
    parts = ppvae.TCDecomposition(500, stratified_sampling=stratified_sampling).parts(particles)
    torch.testing.assert_close(sum(parts), particles.guide["z"].log_prob - particles.model["z"].log_prob)


def test_all_weights_alike_make_a_beta_vae():
    model, guide, x = gaussian_aggregate(20)
    particles = ppvae.draw(model, guide, x, num_particles=2)
    bound = ppvae.ELBO(2, analytic_kl=False)
    ours = (bound + ppvae.TCDecomposition(500, 3.0, 3.0, 3.0)).per_datum(particles).mean()
    theirs = (bound + ppvae.KLWeight(3.0, analytic_kl=False)).per_datum(particles).mean()
    torch.testing.assert_close(ours, theirs)


def test_the_pair_learns_through_the_critic_and_gives_it_no_gradient():
    model, guide, x = PAIRS["gaussian_vae"].make()
    term = ppvae.TotalCorrelation(2.0, latent_dim=3)
    particles = ppvae.draw(model, guide, x)
    term.penalty(particles).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in guide.parameters())
    assert all(p.grad is None and p.requires_grad for p in term.adversary.parameters())


def test_the_critic_learns_and_gives_the_pair_no_gradient():
    model, guide, x = PAIRS["gaussian_vae"].make()
    term = ppvae.TotalCorrelation(2.0, latent_dim=3)
    particles = ppvae.draw(model, guide, x)
    term.adversary.loss([particles], [particles.source.draws_for(x.flip(0))]).backward()
    assert all(p.grad is None for module in (model, guide) for p in module.parameters())
    assert all(p.grad.abs().sum() > 0 for p in term.adversary.parameters())


def test_a_critic_takes_any_guide_and_the_decomposition_a_product_alone():
    model, guide, x = PAIRS["flow_planar"].make()
    particles = ppvae.draw(model, guide, x)
    assert torch.isfinite(ppvae.TotalCorrelation(1.0, latent_dim=2).penalty(particles)).all()
    for other in (guide, FullRankGaussian(MLP(5, [], 5), 2).double()):
        with pytest.raises(ppvae.ContractError, match=r"product of densities.*use MeanFieldGaussian"):
            ppvae.TCDecomposition(10).penalty(ppvae.draw(linear_gaussian().double(), other, x))
