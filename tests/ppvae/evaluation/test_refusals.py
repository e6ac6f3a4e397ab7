"""Bad input: every evaluator refuses it in words, with the datum where there is one, and never gives a wrong number."""

import contextlib
import math

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from torch import nn

import ppvae
from ppvae.engine.batch import as_batch
from ppvae.engine.pair import Pair
from ppvae.evaluation import Annealing, Ascent, inference_data, sample
from ppvae.guides import CategoricalGuide, MeanFieldGaussian
from ppvae.models import GaussianMixture
from ppvae.nn import MLP
from tests.catalogue import PAIRS
from tests.ppvae.evaluation.evaluators import ESTIMATES, OTHERS, SHORT, SIMULATE, WITHOUT_GUIDE
from tests.ppvae.oracles import linear_gaussian, nearly_exact


@pytest.mark.parametrize("name", ["ais", "bdmc", "upper_bound", "latent_statistics"])
def test_evaluator_refuses_a_guide_that_cannot_score(name):
    model, guide, x = PAIRS["flow_planar"].make()
    with pytest.raises(ppvae.ContractError, match=r"expected a guide that can score.*got FlowGuide.*use a guide with"):
        ESTIMATES[name](model, guide, x)


class HiddenClass(ppvae.Model):
    """A discrete latent that the guide does not draw."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 5).double()

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Categorical(logits=x.new_zeros(3)))
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z) + w.unsqueeze(-1), 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("name", [*ESTIMATES, *OTHERS])
def test_evaluator_refuses_a_discrete_latent_that_the_guide_does_not_draw(name):
    _, guide, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match=r"\['w'\]"):
        (ESTIMATES | OTHERS)[name](HiddenClass(), guide, x)


def family(distribution):
    """A mean-field guide with another distribution of the same mean."""

    class Other(MeanFieldGaussian):
        def distribution(self, features):
            return distribution(features.chunk(2, -1)[0])

    return Other(MLP(5, [], 4)).double()


FAMILIES = {
    "a point mass": lambda loc: dist.Delta(loc).to_event(1),
    r"positive on \(0, inf\) alone": lambda loc: dist.LogNormal(loc, 1.0).to_event(1),
    r"positive on \(-1, 1\) alone": lambda loc: dist.Uniform(-torch.ones_like(loc), 1.0).to_event(1),
    r"support Simplex\(\)": lambda loc: dist.Dirichlet(loc.exp()),
}


@pytest.mark.parametrize("reason", FAMILIES)
@pytest.mark.parametrize("name", ESTIMATES)
def test_evaluator_refuses_a_guide_without_a_density_over_the_space_of_the_prior(name, reason):
    model, x = linear_gaussian()
    with pytest.raises(ppvae.ContractError, match=f"{reason}.*weights p/q do not exist"):
        ESTIMATES[name](model, family(FAMILIES[reason]), x)


def test_compare_names_the_pair_without_weights():
    model, x = linear_gaussian()
    guides = {"good": nearly_exact(model), "point": family(FAMILIES["a point mass"])}
    with pytest.raises(ppvae.ContractError, match="pair 'point': expected q"):
        ppvae.compare(model, guides, x)


class Relaxed(ppvae.Guide):
    """A continuous relaxation where the model has a discrete latent."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sum(-1), 1.0))


@pytest.mark.parametrize("name", ["log_marginal", "compare"])
def test_evaluator_refuses_a_guide_over_other_discrete_values(name):
    model, x = GaussianMixture(torch.randn(3, 5)).double(), torch.randn(6, 5).double()
    for classes in (2, 4):
        guide = CategoricalGuide(MLP(5, [], classes)).double()
        with pytest.raises(ppvae.ContractError, match=f"q has {classes} values and p 3|outside the prior's support"):
            ESTIMATES[name](model, guide, x)
    with pytest.raises(ppvae.ContractError, match=r"outside the prior's support|q is continuous"):
        ESTIMATES[name](model, Relaxed(), x)


class ObservesTwice(ppvae.Model):
    """A second observed site, or a factor, after the latent."""

    def __init__(self, factor):
        super().__init__()
        self.factor, self.scale = factor, nn.Parameter(torch.ones(()).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), self.scale).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True).expand(*z.shape[:-1], 5), 1.0).to_event(1), obs=x)
            if self.factor:
                pyro.factor("other", -z.square().sum(-1))
            else:
                pyro.sample("other", dist.Normal(z[..., 0], 1.0), obs=x.new_ones(len(x)))


@pytest.mark.parametrize("factor", [False, True])
@pytest.mark.parametrize("name", SIMULATE)
def test_evaluator_that_simulates_refuses_a_second_observed_site(name, factor):
    _, guide, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match=r"observed site\(s\) \['other'\]"):
        ESTIMATES[name](ObservesTwice(factor), guide, x)
    if name == "bdmc":
        with pytest.raises(ppvae.ContractError, match=r"observed site\(s\) \['other'\]"):
            ppvae.bdmc(ObservesTwice(factor), x, annealing=SHORT)


@pytest.mark.parametrize("factor", [False, True])
def test_evaluators_that_do_not_simulate_take_a_second_observed_site(factor):
    """x and the other are Gaussian given z: their evidence by quadrature over z."""
    _, guide, x = PAIRS["full_rank"].make()
    model, x = ObservesTwice(factor), x[:2]
    grid = torch.cartesian_prod(*2 * [torch.linspace(-6, 6, 241).double()])
    with torch.no_grad():
        sites = Pair(model, None).model_at(as_batch(x), {"z": grid.unsqueeze(1).expand(-1, 2, -1)}, len(grid))
        exact = sum(site.log_prob for site in sites.values()).logsumexp(0) + 2 * math.log(0.05)
    found = ppvae.ais(model, x, annealing=Annealing(temperatures=30, chains=50, leapfrog_steps=3))
    assert ((found.value - exact).abs() < 4 * found.standard_error).all()
    found = ppvae.log_marginal(model, guide, x, num_particles=200)
    assert torch.isfinite(found.value).all()


class OutOfPlace(ppvae.Model):
    """A latent that is scaled, subsampled, or in a second plate."""

    def __init__(self, how):
        super().__init__()
        self.how, self.scale = how, nn.Parameter(torch.ones(()).double())

    def forward(self, x, y=None):
        size = 2 * len(x) if self.how == "subsampled" else len(x)
        with pyro.plate("data", size, subsample_size=len(x)):
            with contextlib.ExitStack() as handlers:
                if self.how == "scaled":
                    handlers.enter_context(poutine.scale(scale=0.1))
                if self.how == "second plate":
                    handlers.enter_context(pyro.plate("more", 1, dim=-3))
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), self.scale).to_event(1))
            mean = z.reshape(-1, *z.shape[-3:])[0].sum(-1, keepdim=True).expand(*z.shape[-3:-1], 5)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("how", ["scaled", "subsampled", "second plate"])
@pytest.mark.parametrize("name", [*ESTIMATES, *OTHERS])
def test_evaluator_refuses_a_site_that_is_scaled_or_outside_the_one_plate(name, how):
    _, guide, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match=r"without a scale|in the one plate|failed on x"):
        (ESTIMATES | OTHERS)[name](OutOfPlace(how), guide, x)


@pytest.mark.parametrize("how", ["scaled", "subsampled", "second plate"])
@pytest.mark.parametrize("name", WITHOUT_GUIDE)
def test_evaluator_without_a_guide_refuses_a_site_that_is_scaled_or_outside_the_one_plate(name, how):
    _, _, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match=r"without a scale|in the one plate"):
        WITHOUT_GUIDE[name](OutOfPlace(how), x)


class ReadsItsData(ppvae.Model):
    """The mean of each element depends on the element before it, which is read from x and not drawn."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5).tril(-1).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            mean = x @ self.weight.T + z.sum(-1, keepdim=True)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


@pytest.mark.parametrize("name", [*ESTIMATES, *OTHERS])
def test_evaluator_refuses_a_model_that_reads_its_own_data(name):
    _, guide, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match="it moved when x changed"):
        (ESTIMATES | OTHERS)[name](ReadsItsData(), guide, x)


@pytest.mark.parametrize("name", WITHOUT_GUIDE)
def test_evaluator_without_a_guide_refuses_a_model_that_reads_its_own_data(name):
    _, _, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match="it moved when x changed"):
        WITHOUT_GUIDE[name](ReadsItsData(), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("part", ["pair", "guide"])
@pytest.mark.parametrize("name", [*ESTIMATES, *OTHERS])
def test_evaluator_refuses_densities_in_half_precision(name, part, dtype):
    model, guide, x = PAIRS["gaussian_vae"].make()
    model, guide, x = model.float(), guide.float(), x.float()
    if part == "pair":
        model, guide, x = model.to(dtype), guide.to(dtype), x.to(dtype)
    else:
        guide.distribution, of = (lambda features: of(features.to(dtype))), guide.distribution
        model.decoder = Cast(model.decoder)
    with pytest.raises(ppvae.ContractError, match=r"expected densities in float32 or float64, got torch\.\w*float16"):
        (ESTIMATES | OTHERS)[name](model, guide, x)


class Cast(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, z):
        return self.network(z.float())


def marked(by_row: bool):
    """A pair with NaN features for the last of six data, by its row or by its value."""
    model, _ = linear_gaussian()
    guide, x = nearly_exact(model), torch.randn(6, 5).double()
    x[5, 0] = 30.0
    rows = (lambda given: torch.arange(len(given)) == 5) if by_row else (lambda given: given[:, 0] == 30.0)
    guide.encoder.register_forward_hook(
        lambda module, args, out: out.masked_fill(rows(args[0]).unsqueeze(-1), math.nan)
    )
    return model, guide, x


@pytest.mark.parametrize("name", ESTIMATES)
def test_evaluator_refuses_nan_weights_with_the_row(name):
    with pytest.raises(ppvae.ContractError, match=r"finite weights.*row 5"):
        ESTIMATES[name](*marked(by_row=name in SIMULATE))


def test_gaps_count_rows_over_all_blocks():
    with pytest.raises(ppvae.ContractError, match=r"finite weights.*row 5"):
        ppvae.gaps(*marked(by_row=False), num_particles=30, ascent=Ascent(max_windows=1, batch_size=2))


def test_latent_statistics_count_rows_over_all_blocks():
    with pytest.raises(ppvae.ContractError, match=r"finite weights.*row 5"):
        ppvae.latent_statistics(*marked(by_row=False), chunk=2)


@pytest.mark.parametrize(
    "run",
    [
        lambda model, guide, x, y: ppvae.ais(model, x, y, annealing=ppvae.Annealing(temperatures=10, chains=2)),
        lambda model, guide, x, y: sample(model, len(x), y),
        ppvae.latent_statistics,
        inference_data,
    ],
)
def test_evaluator_of_continuous_latents_refuses_labels_that_are_known_in_part(run):
    model, guide, x = PAIRS["label"].make()
    with pytest.raises(ppvae.ContractError, match="labels that are all known"):
        run(model, guide, x, torch.tensor([0, -1, 1, 2, 3, 0]))
    run(model, guide, x, torch.tensor([0, 0, 1, 2, 3, 0]))
