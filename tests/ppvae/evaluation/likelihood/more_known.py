"""More pairs with a closed-form evidence: positive and bounded latents, and a posterior of four modes. In float64."""

import math

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.engine.batch import as_batch
from ppvae.engine.contract import Guide, Model
from tests.ppvae.evaluation.likelihood.known import (
    Known,
    LabelStyle,
    OneStyle,
    classes,
    ill_conditioned,
    missing_elements,
    two_layers,
)


class NormalGamma(Model):
    """precision ~ Gamma(2, 1), mean ~ N(0, 1 / (.5 precision)), x: 4 draws of N(mean, 1 / precision)."""

    def __init__(self):
        super().__init__()
        self.shape = nn.Parameter(torch.tensor(2.0).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            precision = pyro.sample("precision", dist.Gamma(self.shape, x.new_ones(())))
            mean = pyro.sample("mean", dist.Normal(0.0, (0.5 * precision) ** -0.5))
            elements = dist.Normal(mean.unsqueeze(-1), precision.unsqueeze(-1) ** -0.5)
            pyro.sample("x", elements.expand((*elements.batch_shape[:-1], 4)).to_event(1), obs=x)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shape and rate of the precision, location and factor of the mean."""
        average, factor = x.mean(-1), torch.tensor(4.5).double()
        spread = 0.5 * (x - average.unsqueeze(-1)).square().sum(-1)
        rate = 1 + spread + 0.5 * 4 * 0.5 / factor * average.square()
        return self.shape + 2, rate, 4 * average / factor, factor

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x), shape (B,)."""
        shape, rate, _, factor = self.posterior(x)
        normaliser = torch.lgamma(shape) - torch.lgamma(self.shape) - shape * rate.log()
        return normaliser + 0.5 * (0.5 / factor).log() - 2 * math.log(2 * math.pi)


class NarrowNormalGamma(Guide):
    """Independent LogNormal and Normal with deviations that are too small by a half."""

    def __init__(self, oracle: NormalGamma):
        super().__init__()
        self._oracle = [oracle]

    def forward(self, x, y=None):
        shape, rate, location, factor = self._oracle[0].posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("precision", dist.LogNormal((shape / rate).log(), 0.5 * shape**-0.5))
            pyro.sample("mean", dist.Normal(location, 0.5 * (rate / shape / factor) ** 0.5))


def normal_gamma(data: int = 24) -> Known:
    """A positive latent on which the scale of another one depends."""
    model = NormalGamma()
    with torch.no_grad():
        precision = dist.Gamma(torch.tensor(2.0).double(), 1.0).sample((data,))
        mean = torch.randn(data).double() * (0.5 * precision) ** -0.5
        x = mean.unsqueeze(-1) + torch.randn(data, 4).double() * precision.unsqueeze(-1) ** -0.5
        return Known(model, NarrowNormalGamma(model), as_batch(x), model.log_evidence(x))


class Counts(Model):
    """rate ~ Gamma(1, 1): an exponential prior, with its mode at the boundary; x ~ Poisson(exposure rate)."""

    def __init__(self):
        super().__init__()
        self.shape = nn.Parameter(torch.tensor(1.0).double())

    def forward(self, x, y=None, *, exposure):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(self.shape, x.new_ones(())))
            pyro.sample("x", dist.Poisson(exposure * rate), obs=x)


class NarrowCounts(Guide):
    """A Gamma of half the posterior's standard deviation."""

    def forward(self, x, y=None, *, exposure):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(4 * (1 + x), 4 * (1 + exposure)))


def counts(data: int = 24) -> Known:
    """A positive latent, with a condition; one datum in several is 0, with a posterior that falls from the boundary."""
    model = Counts()
    exposure = 3 * torch.rand(data).double() + 0.2
    with torch.no_grad():
        x = torch.poisson(exposure * dist.Exponential(torch.tensor(1.0).double()).sample((data,)))
        evidence = x * (exposure / (1 + exposure)).log() - (1 + exposure).log()
    return Known(model, NarrowCounts(), as_batch(x, None, {"exposure": exposure}), evidence)


class Bounded(Model):
    """z ~ U(0, top) for a condition top, x ~ N(z, .5)."""

    def __init__(self):
        super().__init__()
        self.low = nn.Parameter(torch.zeros(()).double())

    def forward(self, x, y=None, *, top):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(self.low.expand_as(top), top))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)


class BoundedGuide(Guide):
    """The prior."""

    def forward(self, x, y=None, *, top):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Uniform(torch.zeros_like(top), top))


def bounded() -> Known:
    """A support that differs between data; two posteriors have most of their mass at its upper end."""
    model, top, x = Bounded(), torch.tensor([1.0, 3.0, 5.0]).double(), torch.tensor([0.5, 2.9, 5.5]).double()
    likelihood = torch.distributions.Normal(x, 0.5)
    evidence = (likelihood.cdf(top) - likelihood.cdf(torch.zeros(3).double())).log() - top.log()
    return Known(model, BoundedGuide(), as_batch(x, None, {"top": top}), evidence)


class Folded(Model):
    """z ~ N(0, I), x ~ N(W |z|, .1^2 I): four modes of equal mass, one in each quadrant of z."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 0.3], [-0.2, 0.8]]).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.abs() @ self.weight.T, 0.1).to_event(1), obs=x)

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """The mode in the first quadrant, up to what it loses at the axes."""
        precision = torch.eye(2).double() + self.weight.T @ self.weight / 0.01
        covariance = torch.linalg.inv(precision)
        return dist.MultivariateNormal(x @ self.weight @ covariance / 0.01, covariance)


class OneQuadrant(Guide):
    """The exact posterior, in one of its four modes."""

    def __init__(self, oracle: Folded):
        super().__init__()
        self._oracle = [oracle]

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", self._oracle[0].posterior(x))


def folded(data: int = 12) -> Known:
    """Modes that are at least five standard deviations apart: log p(x) is that of one mode, plus log 4."""
    model = Folded()
    with torch.no_grad():
        z = 1 + torch.rand(data, 2).double()
        x = z @ model.weight.T + 0.1 * torch.randn(data, 2).double()
        covariance = model.weight @ model.weight.T + 0.01 * torch.eye(2).double()
        of_one = dist.MultivariateNormal(torch.zeros(2).double(), covariance).log_prob(x)
        return Known(model, OneQuadrant(model), as_batch(x), of_one + math.log(4))


CASES = {
    "ill conditioned": lambda: ill_conditioned(0.1, 0.3),
    "worse conditioned": lambda: ill_conditioned(0.03, 0.1),
    "missing elements": missing_elements,
    "two layers": two_layers,
    "classes, unlabelled, q(z | x, y)": lambda: classes(LabelStyle, "none"),
    "classes, unlabelled, q(z | x)": lambda: classes(OneStyle, "none"),
    "classes, partly labelled, q(z | x, y)": lambda: classes(LabelStyle, "some"),
    "classes, partly labelled, q(z | x)": lambda: classes(OneStyle, "some"),
    "classes, labelled, q(z | x, y)": lambda: classes(LabelStyle, "all"),
    "normal gamma": normal_gamma,
    "counts with an exposure": counts,
}
