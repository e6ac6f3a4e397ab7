"""The code of several latents: elements and indicators of classes."""

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import nn

import ppvae
from ppvae.engine.batch import as_batch
from ppvae.guides import LabelGuide
from ppvae.objectives.joint import joint_code, joint_draws, permuted, permuted_code, site_names
from tests.catalogue import CLASSES, LABELS, LATENT, PAIRS
from tests.ppvae.objectives.estimates import particles_of

BOTH = ("z", "y")


@pytest.mark.parametrize("wrong", [(), ("z", "z")])
def test_site_names_are_different_and_at_least_one(wrong):
    with pytest.raises(ValueError, match="expected the name of a latent, or several different ones"):
        site_names(wrong)


def test_joint_code_has_the_draws_of_the_vector_and_each_class():
    particles = particles_of("label")  # two particles
    code = joint_code(particles, BOTH)
    assert code.shape == (CLASSES, 2, 6, LATENT + CLASSES)
    assert code.dtype == torch.float64
    for label in range(CLASSES):
        torch.testing.assert_close(code[label, ..., :LATENT], particles.guide["z"].value)
        assert (code[label, ..., LATENT:] == torch.eye(CLASSES)[label]).all()
    reverse = joint_code(particles, ("y", "z"))
    torch.testing.assert_close(reverse[..., CLASSES:], code[..., :LATENT])


def test_joint_code_of_one_vector_is_its_draws():
    particles = particles_of()
    torch.testing.assert_close(joint_code(particles, ["z"]), particles.guide["z"].value)
    torch.testing.assert_close(joint_draws(particles, ["z"]), particles.guide["z"].value)


def test_joint_draws_have_classes_as_often_as_q_says():
    torch.manual_seed(0)
    model, guide, x = PAIRS["label"].make()
    particles = ppvae.draw(model, guide.eval(), x, num_particles=4000)
    q = particles.guide["y"].distribution.probs[0]
    code = joint_draws(particles, BOTH)
    torch.testing.assert_close(code[..., :LATENT], particles.guide["z"].value)
    assert ((code[..., LATENT:].detach().mean(0) - q).abs() < 5 * (q * (1 - q) / 4000).sqrt()).all()


def test_joint_draws_have_the_known_classes():
    code = joint_draws(particles_of("label", y=LABELS), BOTH)
    known = LABELS >= 0
    assert (code[:, known, LATENT:].argmax(-1) == LABELS[known]).all()


def test_permuted_code_keeps_each_element_and_each_class_as_a_whole():
    particles = particles_of("label")
    z = torch.arange(30.0).reshape(1, 10, 3)
    y = torch.arange(10).reshape(1, 10) % CLASSES
    others = [{"z": z[:, :6], "y": y[:, :6]}, {"z": z[:, 6:], "y": y[:, 6:]}]  # the parts of a step
    code = permuted_code(particles, BOTH, others)
    assert code.shape == (10, 3 + CLASSES)
    torch.testing.assert_close(code[:, :3].sort(0)[0], z[0])
    assert (code[:, 3:].sum(1) == 1).all()
    torch.testing.assert_close(code[:, 3:].sum(0), y[0].bincount(minlength=CLASSES).float())


def test_permuted_code_removes_the_dependence_of_class_and_element():
    torch.manual_seed(0)
    particles, z = particles_of("label"), torch.randn(1, 8000, 1)
    code = permuted_code(particles, BOTH, [{"z": z, "y": (z[..., 0] > 0).long()}])
    assert abs(code[:, [0, 2]].T.corrcoef()[0, 1]) < 4 / 8000**0.5
    assert code[:, 1:3].mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.03)


def test_permuted_keeps_the_columns():
    z = torch.randn(50, 4)
    torch.testing.assert_close(permuted(z).sort(0)[0], z.sort(0)[0])


class Discrete(ppvae.Guide):
    """A discrete latent "n" of some distribution, after a class "y" that it may depend on."""

    def __init__(self, distribution):
        super().__init__()
        self.distribution, self.logits = distribution, nn.Parameter(torch.zeros(3))

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=self.logits))
            pyro.sample("n", self.distribution(y))


def discrete(distribution):
    """Particles of the guide alone."""
    guide = Discrete(distribution)
    return ppvae.engine.pair.Pair(guide, guide).draw(as_batch(torch.zeros(5, 2)))


def test_joint_code_takes_several_discrete_latents_that_are_independent():
    particles = discrete(lambda y: dist.Bernoulli(torch.tensor(0.3)))
    code = joint_code(particles, ["y", "n"])
    assert code.shape == (2, 3, 1, 1, 5)
    assert code[1, 2, 0, 0].tolist() == [0, 0, 1, 0, 1]
    assert joint_draws(particles, ["y", "n"]).shape == (1, 5, 5)


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        (lambda y: dist.Poisson(torch.tensor(2.0)), "'n' as an enumerated class, got Poisson.*use Categorical"),
        (lambda y: dist.OneHotCategorical(torch.ones(4)), "'n' as an enumerated class, got OneHotCategorical"),
        (lambda y: dist.Bernoulli(0.2 + 0.2 * y), r"q\(n \| x\) that depends on no other discrete site"),
    ],
    ids=["not enumerated", "a vector", "given another class"],
)
def test_joint_code_refuses_other_discrete_latents(distribution, message):
    with pytest.raises(ppvae.ContractError, match=message):
        joint_code(discrete(distribution), ["y", "n"])


def test_joint_code_refuses_a_site_that_does_not_exist_and_a_given_label():
    with pytest.raises(ppvae.ContractError, match=r"name of a latent site, got 'w'; this pair has \['y', 'z'\]"):
        joint_code(particles_of("label"), ["z", "w"])
    with pytest.raises(ppvae.ContractError, match=r"data without labels.*leave them out: Dataset\(x\)"):
        joint_code(particles_of("label", y=LABELS.clamp(min=0)), BOTH)


def test_joint_code_refuses_a_vector_for_each_class():
    with pytest.raises(ppvae.ContractError, match="depends on no enumerated one, got 'z'"):
        joint_code(particles_of("label_style"), BOTH)


def test_draws_for_another_batch_have_one_class_a_row():
    model, guide, x = PAIRS["label"].make()
    draws = ppvae.draw(model, guide, x).source.draws_for(as_batch(x[:4]))
    assert draws["y"].shape == (1, 4)
    assert draws["y"].dtype == torch.long
    assert isinstance(guide, LabelGuide)
