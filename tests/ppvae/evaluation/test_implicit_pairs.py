"""An implicit model has no p(x | z): what reads one refuses it by name, what reads samples takes it."""

import pyro
import pytest
import torch

import ppvae
from tests.catalogue import IMPLICIT_PAIRS
from tests.ppvae.evaluation.evaluators import ESTIMATES, OTHERS, WITHOUT_GUIDE

REFUSED = r"expected a model with a density p\(x \| z\), got ImplicitModel, an implicit model"


@pytest.mark.parametrize("pair", IMPLICIT_PAIRS)
@pytest.mark.parametrize("name", [*ESTIMATES, *OTHERS])
def test_evaluator_refuses_an_implicit_model(name, pair):
    with pytest.raises(ppvae.ContractError, match=REFUSED):
        (ESTIMATES | OTHERS)[name](*IMPLICIT_PAIRS[pair].make())


@pytest.mark.parametrize("name", sorted(WITHOUT_GUIDE.keys() - {"sample"}))
def test_evaluator_without_a_guide_refuses_an_implicit_model(name):
    model, _, x = IMPLICIT_PAIRS["codes"].make()
    with pytest.raises(ppvae.ContractError, match=REFUSED):
        WITHOUT_GUIDE[name](model, x)


@pytest.mark.parametrize("objective", [ppvae.ELBO(), pyro.infer.Trace_ELBO(), pyro.infer.RenyiELBO(num_particles=2)])
def test_fit_and_evaluate_loss_refuse_an_implicit_model(objective):
    model, guide, x = IMPLICIT_PAIRS["codes"].make()
    with pytest.raises(ppvae.ContractError, match=REFUSED):
        ppvae.fit(model, guide, objective, x, epochs=1, progress=False)
    with pytest.raises(ppvae.ContractError, match=REFUSED):
        ppvae.evaluate_loss(objective, model, guide, x)


def test_compare_names_the_implicit_pair():
    model, guide, x = IMPLICIT_PAIRS["codes"].make()
    with pytest.raises(ppvae.ContractError, match=f"pair 'only': {REFUSED}"):
        ppvae.compare(model, {"only": guide}, x)


def test_draw_refuses_an_implicit_model():
    with pytest.raises(ppvae.ContractError, match=REFUSED):
        ppvae.draw(*IMPLICIT_PAIRS["codes"].make())


def test_impute_refuses_an_implicit_model_with_missing_elements():
    model, guide, x = IMPLICIT_PAIRS["class_code"].make()
    x[0, 0] = torch.nan
    with pytest.raises(ppvae.ContractError, match=f"{REFUSED}|expected data without NaN"):
        ppvae.impute(model, guide, x)


@pytest.mark.parametrize("pair", IMPLICIT_PAIRS)
def test_what_reads_samples_takes_an_implicit_model(pair):
    model, guide, x = IMPLICIT_PAIRS[pair].make()
    drawn = ppvae.sample(model, 7)
    assert drawn.shape == (7, *x.shape[1:])
    assert torch.isfinite(drawn).all()
    losses = [ppvae.evaluate_loss(ppvae.ForwardKL(), model, guide, drawn, seed=seed) for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
