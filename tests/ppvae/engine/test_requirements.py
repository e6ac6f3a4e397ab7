"""What a replay requires of a pair."""

import re

import pytest
import torch
from pyro import distributions as dist

import ppvae
from ppvae.distributions import Implicit
from ppvae.engine import requirements
from ppvae.guides import FlowGuide, MeanFieldGaussian, planar
from ppvae.models import ImplicitModel
from ppvae.nn import MLP

CATEGORICAL = dist.Categorical(torch.ones(4, 3))


def test_require_same_latents_names_those_that_one_of_the_two_misses():
    assert requirements.require_same_latents({"z", "w"}, {"w", "z"}) is None
    with pytest.raises(
        ppvae.ContractError, match=re.escape("misses latent site(s) ['w'] of the model; it draws ['z']")
    ):
        requirements.require_same_latents({"z", "w"}, {"z"})
    with pytest.raises(ppvae.ContractError, match=re.escape("draws site(s) ['v'] that the model does not have")):
        requirements.require_same_latents({"z"}, {"z", "v"})


def test_require_some_latents_takes_a_part_of_them_and_no_others():
    assert requirements.require_some_latents({"c", "noise"}, {"c"}) is None
    for drawn in (set(), {"z"}, {"c", "z"}):
        got = re.escape(str(sorted(drawn))) if drawn else "none"
        with pytest.raises(ppvae.ContractError, match=rf"some of the latents \['c', 'noise'\].*got {got}"):
            requirements.require_some_latents({"c", "noise"}, drawn)


def test_require_likelihood_names_the_model():
    model = ImplicitModel(MLP(3, [], 5), noise_dim=3)
    assert requirements.require_likelihood(model, dist.Normal(torch.zeros(4, 5), 1.0).to_event(1)) is None
    with pytest.raises(ppvae.ContractError, match=r"a density p\(x \| z\), got ImplicitModel, an implicit model"):
        requirements.require_likelihood(model, Implicit(torch.zeros(4, 5), 1))


@pytest.mark.parametrize(
    "observed", [{"z": False}, {"y": True, "z": False}, {"y": False, "z": False}, {"y": True}, {}], ids=str
)
def test_require_no_other_data_allows_labels_before_the_latents(observed):
    assert requirements.require_no_other_data(observed) is None


@pytest.mark.parametrize(
    "observed", [{"w": True, "z": False}, {"z": False, "w": True}, {"y": True, "z": False, "w": True}], ids=str
)
def test_require_no_other_data_names_a_further_observation(observed):
    with pytest.raises(ppvae.ContractError, match=r"observes x alone.*got observed site\(s\) \['w'\]"):
        requirements.require_no_other_data(observed)


def test_require_no_other_data_refuses_a_label_after_a_latent():
    with pytest.raises(ppvae.ContractError, match=r"got observed site\(s\) \['y'\]"):
        requirements.require_no_other_data({"z": False, "y": True})


@pytest.mark.parametrize("labels", [[0, 1, 2, -1], [-1, -1, -1, -1], [2, 2, 2, 2]])
def test_require_classes_allows_classes_and_unknown_labels(labels):
    assert requirements.require_classes(torch.tensor(labels), 3) is None


@pytest.mark.parametrize("labels", [[0, 3, 0, 0], [0, -2, 0, 0]])
def test_require_classes_refuses_labels_out_of_range(labels):
    message = f"expected labels from 0 to 2, or -1 where unknown, got {min(labels)} to {max(labels)}"
    with pytest.raises(ppvae.ContractError, match=message):
        requirements.require_classes(torch.tensor(labels), 3)
    with pytest.raises(ppvae.ContractError, match=message):
        requirements.require_enumerated_classes(True, CATEGORICAL, torch.tensor(labels))


@pytest.mark.parametrize(("enumerated", "fn"), [(False, CATEGORICAL), (True, dist.OneHotCategorical(torch.ones(4, 3)))])
def test_require_enumerated_classes_refuses_draws_and_one_hot_labels(enumerated, fn):
    with pytest.raises(ppvae.ContractError, match='expected site "y" to be a Categorical class index, enumerated'):
        requirements.require_enumerated_classes(enumerated, fn, torch.zeros(4, dtype=torch.long))


def test_require_can_score_refuses_a_guide_whose_transform_has_no_inverse():
    assert requirements.require_can_score(MeanFieldGaussian(MLP(5, [], 4))) is None
    with pytest.raises(ppvae.ContractError, match="can score values which it did not draw, got FlowGuide"):
        requirements.require_can_score(FlowGuide(MLP(5, [], 7), planar(2, 3), 2))
