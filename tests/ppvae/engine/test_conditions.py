"""Conditions by name: their values in order, the signature that the engine reads, and what is refused."""

import inspect

import pytest
import torch
from pyro import poutine
from torch import nn

import ppvae
from ppvae.engine.conditions import Conditions
from ppvae.engine.tracing import conditions_of, required_conditions_of
from ppvae.guides import MeanFieldGaussian
from ppvae.nn import JointMLP
from tests.catalogue import ALL_PAIRS

Y, ANGLE = torch.tensor([0, 2, 1]), torch.randn(3, 2)


def test_values_are_in_the_order_of_the_names():
    first, second = Conditions(["y", "angle"]).values("the model", Y, {"angle": ANGLE, "other": Y})
    assert first is Y
    assert second is ANGLE
    assert Conditions().values("the model", None, {"angle": ANGLE}) == ()


def test_one_name_needs_no_list():
    assert Conditions("angle").names == Conditions(["angle"]).names == ("angle",)


def test_signature_requires_the_names_but_the_label_which_has_its_place():
    signature = Conditions(["angle", "y", "size"]).signature
    assert str(signature) == "(x, y=None, *, angle, size)"
    assert signature.parameters["angle"].default is inspect.Parameter.empty


@pytest.mark.parametrize("names", ["x", ["angle", "angle"], ["an angle"], [3], [""], "class", "step", "self"])
def test_names_that_are_no_conditions_are_refused(names):
    with pytest.raises(ValueError, match="expected distinct identifiers as names of conditions"):
        Conditions(names)


def test_values_refuse_a_missing_condition_and_missing_labels():
    with pytest.raises(ppvae.ContractError, match=r"\['angle'\] of the model, got \['angel'\].*angle=\.\.\."):
        Conditions("angle").values("the model", None, {"angel": ANGLE})
    with pytest.raises(ppvae.ContractError, match=r"the model needs labels.*every one of them known"):
        Conditions("y").values("the model", None, {})


def test_conditions_of_a_model_and_a_guide_are_those_of_the_constructor():
    for pair in ("conditional_vae", "conditional_flow", "conditional_mixture", "conditional_standard_normal"):
        model, guide, _ = ALL_PAIRS[pair].make()
        for function in (model, guide):
            assert conditions_of(function) == required_conditions_of(function) == {"angle"}
    for function in ALL_PAIRS["class_conditional"].make()[:2]:
        assert conditions_of(function) == required_conditions_of(function) == set()
    assert conditions_of(MeanFieldGaussian(nn.Linear(5, 4))) == set()


def test_guide_gets_the_conditions_that_it_names_and_no_others():
    model, guide, batch = ALL_PAIRS["conditional_vae"].make_batch()
    many = ppvae.Batch(batch.x, None, {**batch.given, "other": batch.given["angle"]})
    torch.testing.assert_close(ppvae.features(guide, many), ppvae.features(guide, batch))
    blind = MeanFieldGaussian(nn.Sequential(nn.Flatten(), nn.Linear(64, 2 * 3))).double()
    ppvae.check_pair(model, blind, batch)  # q(z | x) for p(x, z | angle) is allowed


def test_encoder_takes_x_and_then_the_conditions_in_their_order():
    seen = []

    class Recording(nn.Module):
        def forward(self, *inputs):
            seen.extend(inputs)
            return inputs[0].new_zeros(3, 4)

    x = torch.zeros(3, 5)
    guide = MeanFieldGaussian(Recording(), ["y", "angle"])
    poutine.trace(guide).get_trace(x, Y, angle=ANGLE)
    assert all(found is expected for found, expected in zip(seen, (x, Y, ANGLE), strict=True))


def test_functions_refuse_data_without_the_condition_of_the_pair():
    model, guide, batch = ALL_PAIRS["conditional_vae"].make_batch()
    calls = [
        lambda data: ppvae.check_pair(model, guide, data),
        lambda data: ppvae.fit(model, guide, ppvae.ELBO(), data, epochs=1, progress=False),
        lambda data: ppvae.log_marginal(model, guide, data),
        lambda data: ppvae.evaluate_loss(ppvae.ELBO(), model, guide, data),
        lambda data: ppvae.features(guide, data),
        lambda data: ppvae.reconstruct(model, guide, data),
        lambda data: ppvae.sample(model, len(data.x)),
        lambda data: ppvae.draw(model, guide, data),
        lambda data: ppvae.ELBO().differentiable_loss(model, guide, data.x),
    ]
    for call in calls:
        with pytest.raises(ppvae.ContractError, match=r"^expected the condition\(s\) \['angle'\]"):
            call(ppvae.Dataset(batch.x))


@pytest.mark.parametrize("y", [None, torch.tensor([0, 1, -1, 2, 3, 0])])
def test_functions_refuse_data_of_which_a_class_conditional_pair_lacks_labels(y):
    model, guide, batch = ALL_PAIRS["class_conditional"].make_batch()
    data = ppvae.Dataset(batch.x, y)
    calls = [
        lambda: ppvae.check_pair(model, guide, data),
        lambda: ppvae.fit(model, guide, ppvae.ELBO(), data, epochs=1, progress=False),
        lambda: ppvae.log_marginal(model, guide, data),
        lambda: ppvae.evaluate_loss(ppvae.ELBO(), model, guide, data),
        lambda: ppvae.features(guide, data),
        lambda: ppvae.reconstruct(model, guide, data),
        lambda: ppvae.sample(model, len(data), y),
        lambda: ppvae.ELBO().differentiable_loss(model, guide, data.x, y),
    ]
    for call in calls:
        with pytest.raises(ppvae.ContractError, match=r"^(ConditionalVAE|MeanFieldGaussian) needs labels"):
            call()


def test_functions_refuse_a_label_outside_of_the_classes_of_a_class_conditional_pair():
    model, guide, batch = ALL_PAIRS["class_conditional"].make_batch()
    x, y = batch.x.repeat(5, 1, 1), torch.zeros(5 * len(batch), dtype=torch.long)
    y[-1] = 99
    for call in calls_of(model, guide, ppvae.Dataset(x, y)):
        with pytest.raises(ppvae.ContractError, match=r"labels go from 0 to 99: the networks may be made for fewer"):
            call()
    with pytest.raises(ppvae.ContractError, match=r"labels from 0, or -1 where unknown, got -2 to 0"):
        ppvae.log_marginal(model, guide, x, y.clamp(max=0) - 2 * (y > 0))


def test_functions_refuse_a_missing_value_of_a_condition_that_the_networks_do_not_take():
    model, guide, batch = ALL_PAIRS["conditional_vae"].make_batch()
    x, angle = batch.x.repeat(5, 1, 1), batch.given["angle"].repeat(5, 1)
    angle[-1, 0] = torch.nan
    for call in calls_of(model, guide, ppvae.Dataset(x, angle=angle)):
        with pytest.raises(ppvae.ContractError, match=r"'angle'.*missing elements \(NaN\)"):
            call()
    with pytest.raises(ppvae.ContractError, match=r"finite condition 'angle', got infinity first in row 29"):
        ppvae.features(guide, x, angle=angle.nan_to_num(torch.inf))


def test_functions_name_a_condition_of_another_type_than_the_parameters():
    model, guide, batch = ALL_PAIRS["conditional_vae"].make_batch()
    for call in calls_of(model, guide, ppvae.Dataset(batch.x, angle=batch.given["angle"].long())):
        with pytest.raises(ppvae.ContractError, match=r"'angle' is torch.int64 .* torch.float64: pass angle.double"):
            call()


def calls_of(model, guide, data):
    given = data.given if data.y is None else {"y": data.y}
    return (
        lambda: ppvae.check_pair(model, guide, data),
        lambda: ppvae.fit(model, guide, ppvae.ELBO(), data, epochs=1, progress=False),
        lambda: ppvae.log_marginal(model, guide, data),
        lambda: ppvae.evaluate_loss(ppvae.ELBO(), model, guide, data),
        lambda: ppvae.features(guide, data),
        lambda: ppvae.reconstruct(model, guide, data),
        lambda: ppvae.sample(model, len(data), **given),
    )


def test_network_without_room_for_the_condition_says_so():
    model, _, batch = ALL_PAIRS["conditional_vae"].make_batch()
    guide = MeanFieldGaussian(JointMLP([(8, 8)], [8], 2 * 3), "angle").double()
    with pytest.raises(ppvae.ContractError, match=r"the guide failed.*expected 1 inputs, got 2"):
        ppvae.check_pair(model, guide, batch)
