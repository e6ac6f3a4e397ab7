import pyro
import pytest
import torch
from torch import nn

import ppvae
from ppvae.engine.batch import Batch
from ppvae.engine.pair import Pair
from ppvae.engine.tracing import At
from ppvae.guides import RecognitionGuide
from ppvae.models import ImplicitModel
from ppvae.nn import MLP


def model_of_all(shape=(4, 4)):
    torch.manual_seed(0)
    return ImplicitModel(MLP(3 + 2 + 5, [8], shape), num_classes=3, num_codes=2, noise_dim=5)


def test_sites_have_the_priors_and_x_is_what_the_generator_gives():
    model = model_of_all()
    sites = Pair(model, None).prior(Batch(torch.zeros(2000, 4, 4)), 1)
    assert list(sites) == ["c", "k", "noise", "x"]
    c, k, noise = (sites[name].value[0] for name in ("c", "k", "noise"))
    assert torch.bincount(c, minlength=3).min() > 600  # of 667 expected, with a deviation of 21
    assert -1 <= k.min() < -0.99
    assert 0.99 < k.max() <= 1
    assert noise.std().item() == pytest.approx(1.0, abs=0.05)
    joint = torch.cat([nn.functional.one_hot(c, 3), k, noise], -1)
    torch.testing.assert_close(sites["x"].distribution.mean[0], model.generator(joint))


def test_generate_broadcasts_codes_and_noise():
    model = model_of_all()
    k, noise = torch.rand(2), torch.randn(7, 1, 5)
    x = model.generate(c=torch.arange(3), k=k, noise=noise)
    assert x.shape == (7, 3, 4, 4)
    one = model.generator(torch.cat([torch.tensor([0.0, 1.0, 0.0]), k, noise[4, 0]]))
    torch.testing.assert_close(x[4, 1], one)


@pytest.mark.parametrize("lengths", [(3, 0, 0), (0, 2, 0), (0, 0, 5), (3, 2, 0), (0, 2, 5)])
def test_a_site_of_length_zero_does_not_exist(lengths):
    model = ImplicitModel(MLP(sum(lengths), [8], 6).double(), *lengths)
    sites = Pair(model, None).prior(Batch(torch.zeros(4, 6).double()), 2)
    assert list(sites) == [name for name, length in zip(("c", "k", "noise"), lengths, strict=True) if length] + ["x"]
    assert sites["x"].distribution.mean.shape == (2, 4, 6)
    assert sites["x"].distribution.mean.dtype == torch.float64


def test_sample_draws_images_of_the_generator_without_a_template():
    model = model_of_all()
    drawn = ppvae.sample(model, 8, seed=3)
    assert drawn.shape == (8, 4, 4)
    assert torch.equal(drawn, ppvae.sample(model, 8, seed=3))
    assert not torch.equal(drawn, ppvae.sample(model, 8, seed=4))


def test_codes_can_be_held_by_a_handler():
    model = model_of_all()
    with At({"noise": torch.zeros(1, 6, 5), "k": torch.zeros(1, 6, 2)}):
        sites = Pair(model, None).prior(Batch(torch.zeros(6, 4, 4)), 1)
    c = sites["c"].value[0]
    expected = model.generate(c=c, k=torch.zeros(2), noise=torch.zeros(5))
    torch.testing.assert_close(sites["x"].distribution.mean[0], expected)


def test_a_generator_without_input_or_with_a_negative_length_is_refused():
    with pytest.raises(ValueError, match="expected codes or noise for the generator, got none"):
        ImplicitModel(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="expected num_codes of at least 0, got -1"):
        ImplicitModel(nn.Linear(1, 1), num_codes=-1, noise_dim=3)


def test_check_pair_refuses_a_generator_of_another_shape():
    guide = RecognitionGuide(MLP((4, 4), [], 5), 3, 2)
    for shape in ((4, 5), 16):
        with pytest.raises(ppvae.ContractError, match=r"expected the model to give x of shape \(4, 4\), got"):
            ppvae.check_pair(model_of_all(shape), guide, torch.rand(5, 4, 4))


class ReadsData(ImplicitModel):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", pyro.distributions.Uniform(-x.new_ones(2), 1.0).to_event(1))
            pyro.sample("x", ppvae.distributions.Implicit(self.generator(k) + x, 1), obs=x)


def test_check_pair_refuses_a_generator_that_reads_the_data():
    model = ReadsData(nn.Linear(2, 4), num_codes=2)
    with pytest.raises(ppvae.ContractError, match=r"distribution of 'x' to be a function of latents.*it moved"):
        ppvae.check_pair(model, RecognitionGuide(nn.Linear(4, 2), num_codes=2), torch.rand(5, 4))
