"""The contract tests: every pair with every objective."""

import pyro
import pytest
import torch
from pyro.distributions.testing import fakes
from torch import nn

import ppvae
from ppvae.distributions.likelihoods import Gaussian
from ppvae.guides import LabelGuide
from ppvae.models import SemiSupervisedVAE
from ppvae.nn import MLP, LabelledMLP
from tests.catalogue import (
    ALL_PAIRS,
    GANS,
    IMPLICIT_PAIRS,
    LABELS,
    OBJECTIVES,
    PAIRS,
    POINT_OBJECTIVES,
    POINT_PAIRS,
)

CELLS = [(pair, objective) for pair in ALL_PAIRS for objective in OBJECTIVES]
FITTING = [(pair, objective) for pair, objective in CELLS if OBJECTIVES[objective].fits(ALL_PAIRS[pair])]


def batch_of(pair, seed=0):
    """A pair, and a batch with the labels that train all of it: some of them, where the class is a latent."""
    model, guide, batch = ALL_PAIRS[pair].make_batch(seed)
    kinds = ALL_PAIRS[pair].kinds(batch)
    return model, guide, kinds.get("partly labelled") or next(iter(kinds.values()))


@pytest.mark.parametrize("pair", ALL_PAIRS)
def test_check_pair_accepts_every_pair_with_and_without_labels(pair):
    model, guide, batch = ALL_PAIRS[pair].make_batch()
    for kind in ALL_PAIRS[pair].kinds(batch).values():
        ppvae.check_pair(model, guide, kind)
        ppvae.check_pair(model, guide, kind.x.numpy(), kind.y, **kind.given)


@pytest.mark.parametrize(("pair", "objective"), FITTING)
def test_objective_is_finite_and_gives_a_gradient_to_every_parameter_that_it_trains(pair, objective):
    model, guide, batch = batch_of(pair)
    loss = OBJECTIVES[objective].make().differentiable_loss(model, guide, batch.x, batch.y, **batch.given)
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    for name, parameter in OBJECTIVES[objective].trained(ALL_PAIRS[pair], model, guide).items():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("pair", "objective"), FITTING)
def test_parts_are_numbers_of_each_datum_or_of_the_batch_and_add_up_to_the_loss(pair, objective):
    model, guide, batch = batch_of(pair)
    estimator = OBJECTIVES[objective].make()
    torch.manual_seed(0)
    particles = ppvae.draw(model, guide, batch, num_particles=estimator.num_particles)
    torch.manual_seed(1)
    parts = estimator.parts(particles)
    torch.manual_seed(1)
    losses = estimator.per_datum(particles)
    assert {tuple(part.shape) for part in parts.values()} <= {(), (len(batch),)}
    assert losses.shape == (len(batch),)
    torch.testing.assert_close(losses, sum(parts.values()).expand(len(batch)))


@pytest.mark.parametrize(("pair", "objective"), sorted(set(CELLS) - set(FITTING)))
def test_objective_refuses_a_pair_that_does_not_have_what_it_reads(pair, objective):
    model, guide, batch = ALL_PAIRS[pair].make_batch()
    expected = (
        r"expected a (guide|model) that (can score|draws site 'y')|expected a (.*latent|fixed prior)|"
        r"expected the name of a latent site|expected a part 'rate/z'|"
        r"expected q\(z \| x\) (as a product|with a formula)|expected one prior of 'z'|needs labels|"
        r"expected x without missing elements|"
        r"expected latents that are all drawn for the same enumerated sites"
    )
    with pytest.raises(ppvae.ContractError, match=expected):
        OBJECTIVES[objective].make().differentiable_loss(model, guide, batch.x, batch.y, **batch.given)


@pytest.mark.parametrize(("pair", "objective"), FITTING)
def test_objective_trains_every_pair_in_a_stock_svi_loop(pair, objective):
    pyro.clear_param_store()
    model, guide, batch = batch_of(pair)
    moving = OBJECTIVES[objective].trained(ALL_PAIRS[pair], model, guide).values()
    before = [p.detach().clone() for p in moving]
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=OBJECTIVES[objective].make())
    losses = [svi.step(batch.x, batch.y, **batch.given) for _ in range(3)]
    assert all(torch.isfinite(torch.tensor(losses)))
    assert all((p - b).abs().max() > 0 for p, b in zip(moving, before, strict=True))


@pytest.mark.parametrize("pair", PAIRS)
def test_load_checkpoint_restores_the_weights_of_every_pair(pair, tmp_path):
    model, guide, x = PAIRS[pair].make()
    ppvae.fit(model, guide, ppvae.ELBO(), x, epochs=1, batch_size=3, run_dir=tmp_path, progress=False)
    again_model, again_guide, _ = PAIRS[pair].make(seed=1)
    ppvae.load_checkpoint(tmp_path / "last.safetensors", again_model, again_guide)
    for module, again in ((model, again_model), (guide, again_guide)):
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize("pair", ALL_PAIRS)
def test_fit_trains_every_pair_on_a_dataset_with_its_labels_and_conditions(pair):
    model, guide, batch = batch_of(pair)
    data = ppvae.Dataset(batch.x, batch.y, num_classes=4, **batch.given)
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    objective = ppvae.ELBO() + ppvae.ClassifierLoss(1.0) if ALL_PAIRS[pair].labelled else ppvae.ELBO()
    result = ppvae.fit(model, guide, objective, data, epochs=1, batch_size=3, progress=False)
    after = [*model.parameters(), *guide.parameters()]
    assert torch.isfinite(torch.tensor(result.metrics[-1]["loss"]))
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("pair", ALL_PAIRS)
def test_log_marginal_of_every_pair_is_finite(pair):
    model, guide, batch = ALL_PAIRS[pair].make_batch()
    result = ppvae.log_marginal(model, guide, batch, num_particles=30)
    assert result.value.shape == result.ess.shape == result.khat.shape == (len(batch),)
    assert torch.isfinite(result.value).all()


class ScoreFunction(ppvae.Guide):
    """Draws that pass no gradient on."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(5, 2)

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", fakes.NonreparameterizedNormal(self.net(x), 1.0).to_event(1))


@pytest.mark.parametrize("objective", [ppvae.ReweightedWakeSleep(5), pyro.infer.Trace_ELBO()])
def test_fit_trains_a_guide_without_reparameterised_draws(objective):
    model, _, x = PAIRS["linear_gaussian"].make()
    guide = ScoreFunction().double()
    before = guide.net.weight.detach().clone()
    ppvae.fit(model, guide, objective, x, epochs=2, batch_size=2, progress=False)
    assert not torch.equal(before, guide.net.weight)
    assert torch.isfinite(ppvae.log_marginal(model, guide, x, num_particles=10).value).all()


def test_fit_trains_a_semi_supervised_pair_on_the_features_of_another():
    """M1+M2: the second pair is trained on the posterior means of the first."""
    m1, m1_guide, x = PAIRS["gaussian_vae"].make()
    ppvae.fit(m1, m1_guide, ppvae.ELBO(), x, epochs=2, batch_size=3, progress=False)
    codes = ppvae.features(m1_guide, x).detach()
    m2 = SemiSupervisedVAE(LabelledMLP(2, 4, [8], 3), 2, 4, Gaussian(0.5)).double()
    m2_guide = LabelGuide(MLP(3, [8], 4), MLP(3, [8], 4)).double()
    data = ppvae.Dataset(codes, LABELS, num_classes=4)
    result = ppvae.fit(
        m2, m2_guide, ppvae.ELBO() + ppvae.ClassifierLoss(1.0), data, epochs=3, batch_size=2, progress=False
    )
    assert result.metrics[-1]["loss"] < result.metrics[0]["loss"]
    assert ppvae.predict(m2_guide, codes).shape == (len(x), 4)


def test_iwae_with_every_latent_enumerated_does_not_depend_on_the_guide():
    model, guide, x = PAIRS["mixture"].make()
    ppvae.IWAE(2).differentiable_loss(model, guide, x).backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in guide.parameters())


def test_labels_of_the_catalogue_are_of_both_kinds():
    assert (LABELS < 0).any()
    assert (LABELS >= 0).any()


POINT_CELLS = [(pair, objective) for pair in POINT_PAIRS for objective in POINT_OBJECTIVES]


@pytest.mark.parametrize("pair", POINT_PAIRS)
def test_check_pair_accepts_point_masses(pair):
    ppvae.check_pair(*POINT_PAIRS[pair].make())


@pytest.mark.parametrize(("pair", "objective"), POINT_CELLS)
def test_objective_without_a_density_of_q_trains_every_parameter_of_a_point_mass(pair, objective, tmp_path):
    model, guide, x = POINT_PAIRS[pair].make()
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    result = ppvae.fit(
        model,
        guide,
        POINT_OBJECTIVES[objective](),
        x,
        epochs=2,
        batch_size=3,
        validation=x,
        run_dir=tmp_path,
        progress=False,
    )
    row = result.metrics[-1]
    names = {name.removeprefix("validation/") for name in row if name.startswith("validation/")}
    parts = [row[name] for name in names]
    assert row["loss"] == pytest.approx(sum(parts))
    assert torch.isfinite(torch.tensor([row["loss"], row["validation_loss"]])).all()
    after = [*model.parameters(), *guide.parameters()]
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    again_model, again_guide, _ = POINT_PAIRS[pair].make(seed=1)
    ppvae.load_checkpoint(tmp_path / "last.safetensors", again_model, again_guide)
    assert torch.equal(ppvae.reconstruct(model, guide, x), ppvae.reconstruct(again_model, again_guide, x))


@pytest.mark.parametrize("pair", POINT_PAIRS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objective_that_weighs_q_refuses_a_point_mass(pair, objective):
    model, guide, x = POINT_PAIRS[pair].make()
    expected = r"point mass, which has no density: the weights p/q do not exist|expected a (guide|model) that draws"
    with pytest.raises(ppvae.ContractError, match=expected):
        OBJECTIVES[objective].make().differentiable_loss(model, guide, x)


@pytest.mark.parametrize("pair", IMPLICIT_PAIRS)
def test_check_pair_accepts_implicit_models(pair):
    ppvae.check_pair(*IMPLICIT_PAIRS[pair].make())


@pytest.mark.parametrize("pair", IMPLICIT_PAIRS)
@pytest.mark.parametrize("gan", GANS)
def test_train_moves_every_parameter_of_a_generator_its_guide_and_its_adversary(pair, gan, tmp_path):
    model, guide, x = IMPLICIT_PAIRS[pair].make()
    network = MLP(tuple(x.shape[1:]), [8], 1).double()
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters(), *network.parameters())]
    players = GANS[gan](model, guide, network)
    row = ppvae.train(players, x, epochs=2, batch_size=3, run_dir=tmp_path, progress=False).metrics[-1]
    parts = [value for name, value in row.items() if name == "adversarial" or name.startswith("information/")]
    assert row["loss"] == pytest.approx(sum(parts))
    after = [*model.parameters(), *guide.parameters(), *network.parameters()]
    moved = [not torch.equal(a, b) for a, b in zip(after, before, strict=True)]
    assert moved.count(False) == (gan == "info_wgan_gp")  # the critic's last bias is in no Wasserstein distance
    again_model, again_guide, _ = IMPLICIT_PAIRS[pair].make(seed=1)
    ppvae.load_checkpoint(tmp_path / "last.safetensors", again_model, again_guide)
    assert torch.equal(ppvae.sample(model, 4), ppvae.sample(again_model, 4))


@pytest.mark.parametrize("pair", IMPLICIT_PAIRS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objective_that_reads_a_likelihood_refuses_an_implicit_model(pair, objective):
    model, guide, x = IMPLICIT_PAIRS[pair].make()
    estimator = OBJECTIVES[objective].make()
    if objective == "forward_kl":  # it reads samples alone
        assert torch.isfinite(estimator.differentiable_loss(model, guide, x))
        return
    with pytest.raises(ppvae.ContractError, match=r"got ImplicitModel, an implicit model|that draws site 'y'"):
        estimator.differentiable_loss(model, guide, x)
