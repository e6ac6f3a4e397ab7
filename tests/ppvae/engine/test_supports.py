"""Whether the weights p / q exist."""

import re

import pytest
import torch
from pyro import distributions as dist

from ppvae.engine.supports import is_point_mass, num_values, why_no_weights

zeros = torch.zeros(3)
NORMAL = dist.Normal(0.0, 1.0)
VECTOR = dist.Normal(zeros, 1.0).to_event(1)
WIDE = dist.Uniform(-1.0, 2.0)
UNIT = dist.Uniform(0.0, 1.0)
SHIFTED = dist.TransformedDistribution(dist.Gamma(2.0, 1.0), [dist.transforms.AffineTransform(-5.0, 2.0)])
PAIRS_WITH_WEIGHTS = {
    "the same family": (dist.Normal(1.0, 3.0), NORMAL),
    "another family on the line": (dist.Cauchy(0.0, 1.0), NORMAL),
    "vectors": (VECTOR, dist.Laplace(zeros, 1.0).to_event(1)),
    "a full covariance against a diagonal one": (dist.MultivariateNormal(zeros, torch.eye(3)), VECTOR),
    "a diagonal covariance against a full one": (VECTOR, dist.MultivariateNormal(zeros, torch.eye(3))),
    "a mixture": (dist.MixtureSameFamily(dist.Categorical(zeros.exp()), dist.Normal(zeros, 1.0)), NORMAL),
    "a flow onto the line": (
        dist.TransformedDistribution(NORMAL, [dist.transforms.AffineTransform(1.0, 2.0)]),
        NORMAL,
    ),
    "a line for a half-line": (NORMAL, dist.LogNormal(0.0, 1.0)),
    "half-lines": (dist.Gamma(2.0, 1.0), dist.LogNormal(0.0, 1.0)),
    "a wider interval": (WIDE, UNIT),
    "the unit interval": (dist.Beta(2.0, 3.0), UNIT),
    "a logit-normal for a beta": (
        dist.TransformedDistribution(NORMAL, [dist.transforms.SigmoidTransform()]),
        dist.Beta(2.0, 3.0),
    ),
    "simplices": (dist.Dirichlet(zeros.exp()), dist.Dirichlet(2 * zeros.exp())),
    "as many classes": (dist.Categorical(zeros.exp()), dist.Categorical(torch.tensor([0.1, 0.2, 0.7]))),
    "two classes for a coin": (dist.Categorical(torch.ones(2)), dist.Bernoulli(0.5)),
    "counts": (dist.Poisson(2.0), dist.Poisson(5.0)),
    "a point mass in both": (dist.Delta(zeros), dist.Delta(zeros)),
    "angles": (dist.VonMises(zeros, 1.0).to_event(1), dist.VonMises(zeros + 1, 2.0).to_event(1)),
    "a family that torch makes of a transform": (dist.Gumbel(0.0, 1.0), NORMAL),
    "another of them": (dist.Weibull(1.0, 2.0), dist.LogNormal(0.0, 1.0)),
    "a transform of a half-line in both": (SHIFTED, SHIFTED),
    "a stretched flow": (
        dist.TransformedDistribution(VECTOR, [dist.transforms.AffineTransform(zeros, zeros + 2, event_dim=1)]),
        VECTOR,
    ),
}
PAIRS_WITHOUT = {
    "point mass": (dist.Delta(torch.tensor(0.3)), NORMAL),
    "a point mass": (dist.Delta(zeros).to_event(1), VECTOR),
    "is a point mass": (
        dist.TransformedDistribution(dist.Delta(torch.tensor(0.0)), [dist.transforms.ExpTransform()]),
        dist.LogNormal(0.0, 1.0),
    ),
    r"positive on \(0, inf\) alone and p on \(-inf, inf\)": (dist.LogNormal(0.0, 1.0), NORMAL),
    r"positive on \(0, inf\) alone and p": (dist.Exponential(torch.ones(3)).to_event(1), VECTOR),
    r"positive on \(0, 1\) alone and p on \(0, inf\)": (dist.Beta(1.0, 1.0), dist.Gamma(1.0, 1.0)),
    r"positive on \(0, 1\) alone and p on \(-inf, inf\)": (UNIT, NORMAL),
    "2 values and p 3": (dist.Categorical(torch.ones(2)), dist.Categorical(torch.ones(3))),
    "4 values and p 3": (dist.Categorical(torch.ones(4)), dist.Categorical(torch.ones(3))),
    "2 values and p infinitely many": (dist.Bernoulli(0.5), dist.Poisson(1.0)),
    "q is continuous and p is discrete": (
        dist.RelaxedOneHotCategoricalStraightThrough(torch.tensor(1.0), torch.ones(3)),
        dist.OneHotCategorical(torch.ones(3)),
    ),
    "is continuous and p is discrete": (NORMAL, dist.Categorical(torch.ones(3))),
    "q is discrete and p is continuous": (dist.Bernoulli(0.5), UNIT),
    "p is a point mass": (NORMAL, dist.Delta(torch.tensor(0.0))),
    "is discrete and p is continuous": (dist.Empirical(torch.randn(5), torch.zeros(5)), NORMAL),
    "q has support a circle and p Real": (dist.VonMises(0.0, 1.0), NORMAL),
    "q has support Real.* and p a circle": (NORMAL, dist.VonMises(0.0, 1.0)),
    r"positive on \(-5, inf\) alone and p on \(-inf, inf\)": (SHIFTED, NORMAL),
    r"positive on \(-9, 9\) alone and p on \(-inf, inf\)": (
        dist.TransformedDistribution(
            dist.Beta(zeros + 1, 1.0).to_event(1), [dist.transforms.AffineTransform(-9.0, 18.0)]
        ),
        VECTOR,
    ),
    "support Simplex": (dist.Dirichlet(torch.ones(3)), VECTOR),
}


@pytest.mark.parametrize("case", PAIRS_WITH_WEIGHTS)
def test_why_no_weights_is_none_where_q_covers_p(case):
    assert why_no_weights(*PAIRS_WITH_WEIGHTS[case], read_tensors=True) is None


@pytest.mark.parametrize("case", PAIRS_WITHOUT)
def test_why_no_weights_says_what_is_wrong(case):
    reason = why_no_weights(*PAIRS_WITHOUT[case], read_tensors=True)
    assert reason is not None
    assert re.search(case, reason), reason


def test_why_no_weights_compares_bounds_that_are_tensors_where_it_may_read_them():
    narrow = dist.Uniform(torch.tensor([-3.0, 0.2]), torch.tensor([3.0, 0.8]))
    assert why_no_weights(narrow, dist.Uniform(torch.zeros(2), torch.ones(2)), read_tensors=True) is not None
    wide = dist.Uniform(torch.tensor([-3.0, -0.2]), torch.tensor([3.0, 1.8]))
    assert why_no_weights(wide, dist.Uniform(torch.zeros(2), torch.ones(2)), read_tensors=True) is None


def test_why_no_weights_reads_no_numbers_from_the_device_unless_asked():
    on_meta = dist.Uniform(torch.zeros(2, device="meta"), torch.ones(2, device="meta"), validate_args=False)
    assert why_no_weights(on_meta, on_meta) is None


def test_is_point_mass_looks_through_wrappers():
    assert is_point_mass(dist.Delta(zeros).to_event(1).expand((4,)))
    assert is_point_mass(dist.Delta(zeros, event_dim=1).mask(True))
    assert not is_point_mass(VECTOR)


def test_num_values_counts_the_values_of_a_discrete_distribution():
    assert num_values(dist.Categorical(torch.ones(2, 5))) == 5
    assert num_values(dist.Bernoulli(torch.ones(7))) == 2
    assert num_values(dist.Poisson(1.0)) is None
    assert num_values(NORMAL) is None


SQUASHED = {
    "a mixture of point masses": (
        dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), dist.Delta(torch.zeros(3))),
        "point mass",
    ),
    "a narrow transform before a wide one": (
        dist.TransformedDistribution(
            NORMAL, [dist.transforms.SigmoidTransform(), dist.transforms.AffineTransform(0.0, 0.5)]
        ),
        r"positive on \(0, 0.5\) alone",
    ),
    "the same in one composed transform": (
        dist.TransformedDistribution(
            NORMAL,
            [
                dist.transforms.ComposeTransform(
                    [dist.transforms.TanhTransform(), dist.transforms.AffineTransform(0.0, 0.5)]
                )
            ],
        ),
        r"positive on \(-0.5, 0.5\) alone",
    ),
    "a half-line, moved": (
        dist.TransformedDistribution(
            NORMAL, [dist.transforms.ExpTransform(), dist.transforms.AffineTransform(-1.0, 1.0)]
        ),
        r"positive on \(-1, inf\) alone",
    ),
}


@pytest.mark.parametrize("case", SQUASHED)
def test_why_no_weights_follows_every_transform(case):
    q, reason = SQUASHED[case]
    assert re.search(reason, why_no_weights(q, NORMAL, read_tensors=True))


def test_why_no_weights_compares_two_narrow_transforms():
    unit, third = (
        dist.TransformedDistribution(dist.Uniform(low, high), [dist.transforms.AffineTransform(0.0, 1.0)])
        for low, high in ((0.0, 1.0), (0.4, 0.6))
    )
    assert why_no_weights(third, unit, read_tensors=True) is not None
    assert why_no_weights(unit, third, read_tensors=True) is None
