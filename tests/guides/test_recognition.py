import pytest
import torch
from torch import nn

import ppvae
from ppvae.data import Factors
from ppvae.engine.batch import Batch
from ppvae.engine.pair import Pair
from ppvae.guides import CategoricalGuide, MeanFieldGaussian, RecognitionGuide
from ppvae.models import ImplicitModel
from ppvae.nn import MLP


def pair_of_both():
    torch.manual_seed(0)
    model = ImplicitModel(MLP(3 + 2 + 4, [8], 6), num_classes=3, num_codes=2, noise_dim=4)
    return model, RecognitionGuide(MLP(6, [8], 3 + 2), num_classes=3, num_codes=2, scale=0.5)


def test_log_q_is_that_of_the_categorical_and_of_the_normal_with_the_given_scale():
    model, guide = pair_of_both()
    x, c, k = torch.randn(5, 6), torch.randint(3, (1, 5)), torch.rand(1, 5, 2)
    sites = Pair(model, guide).guide_at(Batch(x), {"c": c, "k": k}, 1)
    logits, means = guide.network(x).split([3, 2], -1)
    torch.testing.assert_close(sites["c"].log_prob[0], -nn.functional.cross_entropy(logits, c[0], reduction="none"))
    expected = torch.distributions.Normal(means, 0.5).log_prob(k[0]).sum(-1)
    torch.testing.assert_close(sites["k"].log_prob[0], expected)


def test_predict_and_features_give_the_codes_that_the_guide_recognises():
    _, guide = pair_of_both()
    x = torch.randn(5, 6)
    logits, means = guide.network(x).split([3, 2], -1)
    torch.testing.assert_close(ppvae.predict(guide, x, site="c"), logits.softmax(-1))
    torch.testing.assert_close(ppvae.features(guide, x, site="k"), means)
    with pytest.raises(ppvae.ContractError, match="expected a categorical latent at site 'k', got a"):
        ppvae.predict(guide, x, site="k")


def test_represent_and_disentanglement_take_the_recognised_codes():
    model, guide = pair_of_both()
    grid = Factors(("shape", "x"), (3, 4))
    x = nn.functional.one_hot(torch.arange(12), 12).float()[:, :6] + grid.values(torch.arange(12)).float().sum(1, True)
    data = ppvae.Dataset(x, factors=grid)
    codes = ppvae.represent(model, guide, data, site="k")
    torch.testing.assert_close(codes.codes, guide.network(x)[:, 3:].detach())
    torch.testing.assert_close(codes.scales, torch.full((12, 2), 0.5))
    assert codes.kl is None  # the prior is uniform
    sizes = {"num_train": 100, "num_test": 50, "num_draws": 10}
    found = ppvae.disentanglement(model, guide, data, site="k", leave_out=["dci", "sap"], **sizes)
    assert 0 <= found.scores["factor_vae"] <= 1
    with pytest.raises(ppvae.ContractError, match="expected a continuous latent at site 'c'"):
        ppvae.represent(model, guide, data, site="c")


def test_a_guide_of_other_latents_is_refused():
    model, _ = pair_of_both()
    x = torch.randn(5, 6)
    with pytest.raises(ppvae.ContractError, match=r"draws some of the latents \['c', 'k', 'noise'\].*got \['z'\]"):
        ppvae.check_pair(model, MeanFieldGaussian(MLP(6, [], 4)), x)
    with pytest.raises(ppvae.ContractError, match=r"got \['z'\]"):
        ppvae.fit(model, CategoricalGuide(MLP(6, [], 3)), ppvae.ForwardKL(), x, epochs=1, progress=False)


def test_a_guide_of_another_number_of_codes_is_refused():
    model, _ = pair_of_both()
    x = torch.randn(5, 6)
    with pytest.raises(ppvae.ContractError, match=r"site 'k' has event shape \(2,\) in the model and \(4,\) in the"):
        ppvae.check_pair(model, RecognitionGuide(MLP(6, [], 4), num_codes=4), x)
    with pytest.raises(ppvae.ContractError, match="q has 4 values and p 3"):
        ppvae.check_pair(model, RecognitionGuide(MLP(6, [], 4), num_classes=4), x)


def test_settings_and_networks_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected scale above 0"):
        RecognitionGuide(nn.Linear(2, 2), num_codes=2, scale=0.0)
    with pytest.raises(ValueError, match="expected a code to recognise, got none"):
        RecognitionGuide(nn.Linear(2, 2))
    with pytest.raises(ppvae.ContractError, match=r"expected 5 features of a RecognitionGuide.*got 4"):
        RecognitionGuide(nn.Linear(2, 4), num_classes=3, num_codes=2)(torch.zeros(5, 2))


def test_forward_kl_trains_the_guide_of_a_generator_and_leaves_the_generator():
    model, guide = pair_of_both()
    with torch.no_grad():
        model.generator.layers[0].weight *= 5
    x = torch.randn(64, 6)
    before = [p.detach().clone() for p in model.parameters()]
    result = ppvae.fit(
        model,
        guide,
        ppvae.ForwardKL(),
        x,
        epochs=30,
        batch_size=32,
        optimizer=ppvae.adam(0.02),
        validation=x,
        progress=False,
    )
    assert result.metrics[-1]["validation_loss"] < result.metrics[0]["validation_loss"] - 0.2
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
