"""Models and guides for the tests of the engine."""

import pyro
import torch
from pyro import distributions as dist
from pyro.nn import PyroModule
from torch import nn

import ppvae
from ppvae.engine.contract import Guide, Model
from ppvae.guides import MeanFieldGaussian
from ppvae.nn import MLP
from tests.ppvae.oracles import linear_gaussian


def guide_of(body, **modules):
    """A guide with the sample statements ``body(self, x)`` inside the plate."""

    class Made(ppvae.Guide):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.zeros(3).double())
            for name, module in modules.items():
                setattr(self, name, module)

        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                body(self, x)

    return Made()


def normal(size: int):
    return dist.Normal(torch.zeros(size).double(), 1.0).to_event(1)


class Placed(ppvae.Guide):
    """q(z | x) with its sample statement placed by ``place``."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def forward(self, x, y=None):
        self.place(x, lambda: pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1)))


def scaled(scale):
    def place(x, sample):
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=scale):
            sample()

    return place


def in_a_second_plate(x, sample):
    with pyro.plate("data", len(x)), pyro.plate("second", 3, dim=-3):
        sample()


def in_another_plate(x, sample):
    with pyro.plate("rows", len(x)):
        sample()


def in_no_plate(x, sample):
    pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))


def subsampled(x, sample):
    with pyro.plate("data", 2 * len(x), subsample=torch.arange(len(x))):
        sample()


def at_another_dim(x, sample):
    with pyro.plate("data", len(x), dim=-3):
        sample()


PLACES = {
    "a scale of 10": scaled(10),
    "a scale of a tenth, as for KL annealing": scaled(0.1),
    "a scale that is a tensor": scaled(torch.tensor(2.0)),
    "a second plate": in_a_second_plate,
    "a plate of another name": in_another_plate,
    "no plate": in_no_plate,
    "a subsampled plate": subsampled,
    "a plate at another dim": at_another_dim,
}


class TwoSensors(ppvae.Model):
    """A second observation next to x, after or before the latent."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            if self.kind == "before":
                pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0), obs=x[:, 0])
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            if self.kind == "factor":
                pyro.factor("w", -z.square().sum(-1))
            if self.kind == "after":
                pyro.sample("w", dist.Normal(z[..., 0], 1.0), obs=x[:, 0])
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), x.new_ones(5)).to_event(1), obs=x)


def noisy_pair():
    torch.manual_seed(0)
    encoder = nn.Sequential(MLP(5, [8], 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    model, x = linear_gaussian()
    return model, MeanFieldGaussian(encoder).double(), x


class Wrapped(nn.Module):
    """A pair's model or guide within a module that forwards everything."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **given):
        return self.inner(*args, **given)


class Plain(PyroModule):
    """A module without a name of its own, as Pyro's tutorials write them."""

    def __init__(self, net):
        super().__init__()
        self.net = net


class PlainModel(Plain):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


class PlainGuide(Plain):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.net(x), 1.0).to_event(1))


class TwoDiscrete(Model):
    """w ~ Categorical, y ~ Categorical(w), x ~ N(loc[w, y], 1); where asked, with a class that is ruled out."""

    def __init__(self, ruled_out: bool = False):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.loc = nn.Parameter(torch.randn(2, 3, generator=generator).double())
        self.logits = nn.Parameter(torch.randn(2, 3, generator=generator).double())
        self.ruled_out = ruled_out

    def forward(self, x, y=None):
        logits = without_last_class(self.logits) if self.ruled_out else self.logits
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Categorical(logits=x.new_zeros(2)))
            y = pyro.sample("y", dist.Categorical(logits=logits[w]), obs=y)
            pyro.sample("x", dist.Normal(self.loc[w, y], 1.0), obs=x)

    def log_joint(self, x):
        """log p(x, w, y), shape (2, 3, B)."""
        prior = -torch.tensor(2.0).log() + self.logits.log_softmax(-1)
        return prior.unsqueeze(-1) + dist.Normal(self.loc.unsqueeze(-1), 1.0).log_prob(x)


class TwoDiscreteGuide(Guide):
    def __init__(self, ruled_out: bool = False):
        super().__init__()
        self.logits = nn.Parameter(torch.linspace(-1, 1, 6).double().reshape(2, 3))
        self.ruled_out = ruled_out

    def forward(self, x, y=None):
        logits = without_last_class(self.logits) if self.ruled_out else self.logits
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Categorical(logits=x.unsqueeze(-1) * x.new_tensor([1.0, -1.0])))
            if y is None:
                pyro.sample("y", dist.Categorical(logits=logits[w]))


def without_last_class(logits):
    return logits.masked_fill(torch.tensor([[False, False, True]] * 2), -torch.inf)
