"""Pairs with a closed-form evidence, and guides that miss a part of their posteriors. All in float64."""

import math
from dataclasses import dataclass

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.engine.batch import Batch, as_batch
from ppvae.engine.contract import Guide, Model
from ppvae.evaluation import LogMarginal, log_marginal
from ppvae.models import LinearGaussian


@dataclass(frozen=True)
class Known:
    """A pair, data of its model, and log p of each datum, shape (B,)."""

    model: Model
    guide: Guide
    batch: Batch
    evidence: Tensor

    def rows(self, index: list[int]) -> "Known":
        """The same pair on some of the data, each as often as its index comes."""
        return Known(self.model, self.guide, self.batch.rows(torch.tensor(index)), self.evidence[index])

    def repeated(self, times: int) -> "Known":
        """The data again and again: so many independent estimates."""
        return self.rows([each % len(self.batch) for each in range(times)])


def estimated(known: Known, proposal="auto", num_particles: int = 1000, **options) -> LogMarginal:
    """log p of each datum by importance sampling."""
    options = {"proposal": proposal, "num_particles": num_particles, **options}
    return log_marginal(known.model, known.guide, known.batch, **options)


class MeanField(Guide):
    """The best Gaussian with a diagonal covariance for a Gaussian posterior, at ``widen`` times its deviations."""

    def __init__(self, oracle: LinearGaussian, widen: float = 1.0):
        super().__init__()
        self._oracle, self.widen = [oracle], widen  # in a list, so that nn.Module does not register it

    def forward(self, x, y=None):
        posterior = self._oracle[0].posterior(x)
        spread = posterior.precision_matrix.diagonal(dim1=-2, dim2=-1) ** -0.5
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(posterior.mean, self.widen * spread.expand_as(posterior.mean)).to_event(1))


def ill_conditioned(lowest: float, noise: float, data: int = 24) -> Known:
    """12 latents with singular values from 1 to ``lowest``, seen in 30 elements."""
    left = torch.linalg.qr(torch.randn(30, 12).double()).Q
    right = torch.linalg.qr(torch.randn(12, 12).double()).Q
    values = torch.logspace(0, math.log10(lowest), 12).double()
    model = LinearGaussian(left @ values.diag() @ right.T, torch.zeros(30).double(), noise).double()
    return _of_linear(model, data)


def missing_elements(data: int = 24) -> Known:
    """4 correlated latents; 3 of 10 elements are missing."""
    model = LinearGaussian(_correlated(10, 4), torch.randn(10).double(), 0.4, missing=True).double()
    return _of_linear(model, data, share_missing=0.3)


def small_linear(data: int = 6, correlation: float = 0.9, widen: float = 1.0) -> Known:
    """2 latents with a correlation of a posteriori -``correlation`` or stronger."""
    weight = torch.tensor([[1.0, correlation], [correlation, 1.0], [0.5, 0.5]]).double()
    model = LinearGaussian(weight, torch.zeros(3).double(), 0.3).double()
    return _of_linear(model, data, widen=widen)


def _of_linear(model: LinearGaussian, data: int, share_missing: float = 0.0, widen: float = 1.0) -> Known:
    with torch.no_grad():
        z = torch.randn(data, model.weight.shape[1]).double()
        noise = torch.randn(data, model.weight.shape[0]).double()
        x = z @ model.weight.T + model.bias + model.log_scale.exp() * noise
        x = x.masked_fill(torch.rand_like(x) < share_missing, torch.nan)
        return Known(model, MeanField(model, widen), as_batch(x), model.log_evidence(x))


def _correlated(rows: int, columns: int) -> Tensor:
    """A matrix with columns that are nearly parallel."""
    return torch.randn(rows, 1).double() + 0.3 * torch.randn(rows, columns).double()


class TwoLayers(Model):
    """z2 ~ N(0, I), z1 ~ N(A z2, .5^2 I), x ~ N(C z1, .3^2 I)."""

    def __init__(self):
        super().__init__()
        self.above = nn.Parameter(_correlated(3, 2))
        self.below = nn.Parameter(_correlated(6, 3))

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(z2 @ self.above.T, 0.5).to_event(1))
            pyro.sample("x", dist.Normal(z1 @ self.below.T, 0.3).to_event(1), obs=x)

    def joint(self) -> tuple[Tensor, Tensor, Tensor]:
        """Prior covariance of (z1, z2), the matrix from it to x, and the covariance of x."""
        between = self.above @ self.above.T + 0.25 * torch.eye(3).double()
        prior = torch.cat([torch.cat([between, self.above], 1), torch.cat([self.above.T, torch.eye(2).double()], 1)])
        out = torch.cat([self.below, torch.zeros(6, 2).double()], 1)
        return prior, out, out @ prior @ out.T + 0.09 * torch.eye(6).double()


class MeanFieldTwoLayers(Guide):
    """q(z1 | x) q(z2 | x): the best Gaussian with a diagonal covariance."""

    def __init__(self, oracle: TwoLayers):
        super().__init__()
        self._oracle = [oracle]

    def forward(self, x, y=None):
        prior, out, covariance = self._oracle[0].joint()
        mean = x @ torch.linalg.solve(covariance, out @ prior)
        spread = (torch.linalg.inv(prior) + out.T @ out / 0.09).diagonal() ** -0.5
        with pyro.plate("data", len(x)):
            pyro.sample("z1", dist.Normal(mean[:, :3], spread[:3]).to_event(1))
            pyro.sample("z2", dist.Normal(mean[:, 3:], spread[3:]).to_event(1))


def two_layers(data: int = 24) -> Known:
    """5 latents in two sites."""
    model = TwoLayers()
    with torch.no_grad():
        covariance = model.joint()[2]
        p_x = dist.MultivariateNormal(torch.zeros(6).double(), covariance)
        x = p_x.sample((data,))
        return Known(model, MeanFieldTwoLayers(model), as_batch(x), p_x.log_prob(x))


class Classes(Model):
    """y ~ Categorical(1/3), z ~ N(0, I), x ~ N(W_y z + b_y, .5^2 I)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.stack([_correlated(5, 3) for _ in range(3)]))
        self.bias = nn.Parameter(0.7 * torch.randn(3, 5).double())

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(logits=x.new_zeros(3)), obs=y)
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            mean = torch.einsum("...xz,...z->...x", self.weight[y], z) + self.bias[y]
            pyro.sample("x", dist.Normal(mean, 0.5).to_event(1), obs=x)

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, y) of each class, shape (B, 3)."""
        covariance = self.weight @ self.weight.mT + 0.25 * torch.eye(5).double()
        return dist.MultivariateNormal(self.bias, covariance).log_prob(x.unsqueeze(1)) - math.log(3)

    def posterior(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of p(z | x, y), and the best deviations of a diagonal covariance, each (..., B, 3)."""
        precision = self.weight.mT @ self.weight / 0.25 + torch.eye(3).double()
        pull = torch.einsum("...xz,...x->...z", self.weight[y], x - self.bias[y]) / 0.25
        mean = torch.einsum("...ij,...j->...i", torch.linalg.inv(precision)[y], pull)
        return mean, (precision.diagonal(dim1=-2, dim2=-1) ** -0.5)[y]


class LabelStyle(Guide):
    """q(y | x) q(z | x, y): the exact class probabilities, the best diagonal Gaussian for each class."""

    def __init__(self, oracle: Classes):
        super().__init__()
        self._oracle = [oracle]

    def forward(self, x, y=None):
        (oracle,) = self._oracle
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", dist.Categorical(logits=oracle.log_joint(x)))
            mean, spread = oracle.posterior(x, y)
            pyro.sample("z", dist.Normal(mean, spread).to_event(1))


class OneStyle(LabelStyle):
    """q(y | x) q(z | x): one diagonal Gaussian for all classes, that of the most probable one, widened."""

    def forward(self, x, y=None):
        (oracle,) = self._oracle
        logits = oracle.log_joint(x)
        mean, spread = oracle.posterior(x, logits.argmax(-1))
        with pyro.plate("data", len(x)):
            if y is None:
                pyro.sample("y", dist.Categorical(logits=logits))
            pyro.sample("z", dist.Normal(mean, 2 * spread).to_event(1))


def classes(guide: type[LabelStyle], labelled: str, data: int = 24) -> Known:
    """Classes of which none, every second or all labels are known."""
    model = Classes()
    with torch.no_grad():
        y = torch.arange(data) % 3
        z = torch.randn(data, 3).double()
        x = torch.einsum("bxz,bz->bx", model.weight[y], z) + model.bias[y] + 0.5 * torch.randn(data, 5).double()
        known = {"none": y < 0, "some": torch.arange(data) % 2 == 0, "all": y >= 0}[labelled]
        joint = model.log_joint(x)
        evidence = torch.where(known, joint.gather(1, y[:, None])[:, 0], joint.logsumexp(1))
        return Known(model, guide(model), as_batch(x, None if labelled == "none" else y.where(known, -1)), evidence)
