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
from ppvae.guides import FullRankGaussian, LabelGuide, MeanFieldGaussian
from ppvae.models import SemiSupervisedVAE
from ppvae.nn import MLP, LabelledMLP
from ppvae.objectives.joint import joint_draws, permuted, permuted_code
from tests.catalogue import CLASSES, LABELS, LATENT, PAIRS, linear_gaussian
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


# with classes

BOTH = {"latent_dim": LATENT + CLASSES, "site": ("z", "y")}


def by_enumeration(term, particles):
    """gamma E_q D by a loop over the classes."""
    q, z = particles.guide["y"].distribution.probs, particles.guide["z"].value
    total = 0
    for label in range(CLASSES):
        code = torch.cat([z, torch.eye(CLASSES)[label].expand(*z.shape[:-1], -1)], -1)
        total = total + q[..., label] * term.critic.network(code.float()).squeeze(-1)
    return term.gamma * total.mean(0)


def test_total_correlation_with_a_class_is_exact_over_the_classes():
    particles, term = particles_of("label"), ppvae.TotalCorrelation(2.5, **BOTH)
    torch.testing.assert_close(term.penalty(particles), by_enumeration(term, particles), check_dtype=False)
    assert term.estimate(particles).shape == (CLASSES, 2, 6)
    assert "total_correlation/z+y" in (ppvae.ELBO() + term).parts(particles)


def test_total_correlation_gives_the_classifier_its_exact_gradient():
    model, guide, x = PAIRS["label"].make()
    term = ppvae.TotalCorrelation(2.0, **BOTH, critic=MLP(LATENT + CLASSES, [8], 1))
    particles = ppvae.draw(model, guide.eval(), x)
    parameters = list(guide.classifier.parameters())
    ours, theirs = (
        torch.autograd.grad(total.sum(), parameters, retain_graph=True)
        for total in (term.penalty(particles), by_enumeration(term, particles))
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)
    assert max(gradient.abs().max() for gradient in ours) > 1e-6


def test_total_correlation_of_partly_labelled_rows_counts_the_known_class_alone():
    particles, term = particles_of("label", y=LABELS), ppvae.TotalCorrelation(1.0, **BOTH)
    at_each, penalty = term.estimate(particles).mean(1), term.penalty(particles)
    for row, label in enumerate(LABELS.tolist()):
        if label >= 0:
            torch.testing.assert_close(penalty[row], at_each[label, row], check_dtype=False)


def classes_and_places(shift, rows=4000):
    """A pair for x = (class, noise): y is the class, and z ~ N(shift (class - 1), 1)."""
    torch.manual_seed(0)
    x = torch.stack([torch.arange(rows) % 3, torch.randn(rows)], 1)
    classifier, encoder = nn.Linear(2, 3), nn.Linear(2, 2)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[-60.0, 0.0], [0.0, 0.0], [60.0, 0.0]]))
        classifier.bias.copy_(torch.tensor([30.0, 0.0, -90.0]))
        encoder.weight.copy_(torch.tensor([[shift, 0.0], [0.0, 0.0]]))
        encoder.bias.copy_(torch.tensor([-shift, 0.0]))
    model = SemiSupervisedVAE(LabelledMLP(1, 3, [4], 2), 1, 3, ppvae.distributions.likelihoods.Gaussian())
    return model, LabelGuide(classifier, encoder), x


def information(shift):
    """I(z; y) of :func:`classes_and_places` by quadrature, which is their total correlation."""
    z = torch.linspace(-12, 12, 6001, dtype=torch.float64)[:, None]
    joint = torch.distributions.Normal(shift * torch.tensor([-1.0, 0.0, 1.0]).double(), 1.0).log_prob(z).exp() / 3
    product = joint.sum(1, keepdim=True) / 3
    return torch.trapezoid((joint * (joint.clamp(min=1e-300) / product).log()).sum(1), z[:, 0]).item()


class ExactRatio(nn.Module):
    """log q(z, y) / q(z) q(y) of :func:`classes_and_places`."""

    def __init__(self, shift):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, code):
        means = self.shift * torch.tensor([-1.0, 0.0, 1.0])
        log_q = torch.distributions.Normal(means, 1.0).log_prob(code[..., :1])
        own = (log_q * code[..., 1:]).sum(-1, keepdim=True)
        return own - log_q.logsumexp(-1, keepdim=True) + math.log(3)


def test_exact_critic_gives_the_information_of_class_and_code_and_has_the_least_loss():
    model, guide, x = classes_and_places(2.0)
    term = ppvae.TotalCorrelation(1.0, 4, ("z", "y"), critic=ExactRatio(2.0))
    particles = ppvae.draw(model, guide, x, num_particles=20)
    found = term.penalty(particles).detach()
    assert information(2.0) > 0.4
    assert found.mean().item() == pytest.approx(information(2.0), abs=4 * (found.std() / len(x) ** 0.5).item())
    own = joint_draws(particles, ("z", "y"))
    other = permuted_code(particles, ("z", "y"), [{"z": own[:1, :, :1], "y": own[:1, :, 1:].argmax(-1)}])
    losses = [
        ppvae.TotalCorrelation(1.0, 4, ("z", "y"), critic=ExactRatio(shift)).critic.logistic_loss(own, other).item()
        for shift in (1.0, 2.0, 3.0)
    ]
    assert losses[1] < min(losses[0], losses[2])
    assert losses[1] < math.log(2) - 0.05


@pytest.mark.parametrize(("shift", "tolerance"), [(2.0, 0.1), (0.0, 0.02)])
def test_trained_critic_finds_the_information_of_class_and_code(shift, tolerance):
    """None where they are independent."""
    model, guide, x = classes_and_places(shift)
    term = ppvae.TotalCorrelation(1.0, 4, ("z", "y"), critic=MLP(4, [32], 1, nn.SiLU))
    optimizer = torch.optim.Adam(term.critic.parameters(), lr=5e-3)
    source = ppvae.draw(model, guide, x).source
    for _ in range(200):
        rows, others = torch.randint(len(x), (2, 1000))
        particles = ppvae.draw(model, guide, x[rows])
        optimizer.zero_grad()
        term.critic.loss(Turn([], [], 0, [particles], [source.draws_for(as_batch(x[others]))])).backward()
        optimizer.step()
    found = term.penalty(ppvae.draw(model, guide, x, num_particles=5)).mean().item()
    assert found == pytest.approx(information(shift), abs=tolerance)


def test_fit_trains_a_critic_of_vector_and_class_and_refuses_labels():
    model, guide, x = PAIRS["label"].make()
    objective = ppvae.factor_vae(2.0, **BOTH, critic=MLP(LATENT + CLASSES, [8], 1))
    before = [p.clone() for p in objective.players[0].module.parameters()]
    result = ppvae.fit(model, guide, objective, x, epochs=2, batch_size=3, progress=False)
    assert {"critic/z+y", "total_correlation/z+y", "rate/y"} <= result.metrics[-1].keys()
    assert all((a != b).any() for a, b in zip(before, objective.players[0].module.parameters(), strict=True))
    labelled = ppvae.data.Dataset(x, LABELS.clamp(min=0))
    with pytest.raises(ppvae.ContractError, match="expected data without labels"):
        ppvae.fit(model, guide, objective, labelled, epochs=1, batch_size=3, progress=False)


@pytest.mark.parametrize(("site", "message"), [((), "the name of a latent"), (("z", "z"), "several different ones")])
def test_total_correlation_refuses_no_site_and_one_twice(site, message):
    with pytest.raises(ValueError, match=message):
        ppvae.TotalCorrelation(1.0, site=site)
