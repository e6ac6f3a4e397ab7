"""Sites outside the one plate, scaled or masked are refused wherever a pair is run."""

import pyro
import pytest
import torch
from pyro import distributions as dist

import ppvae
from ppvae.engine.batch import as_batch
from ppvae.engine.pair import Pair
from tests.catalogue import CLASSES, PAIRS
from tests.ppvae.engine.pairs import PLACES, Placed


@pytest.mark.parametrize("place", PLACES)
def test_draw_refuses_a_site_whose_place_would_be_miscounted(place):
    """A scale, a second plate or none, a subsampled plate: densities would be added up wrongly."""
    model, _, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match=r"expected guide site 'z' (in the one plate|without a scale)"):
        ppvae.draw(model, Placed(PLACES[place]), x)


@pytest.mark.parametrize("objective", [ppvae.ELBO(), ppvae.IWAE(2), ppvae.StickingTheLanding()])
@pytest.mark.parametrize("place", ["a scale of 10", "a scale of a tenth, as for KL annealing", "a subsampled plate"])
def test_objective_in_a_stock_svi_loop_refuses_a_scaled_site(place, objective):
    """``poutine.scale(scale=0.1)`` on the latent of model and guide changes Pyro's loss; ours does not drop it."""

    class Scaled(ppvae.Model):
        def forward(self, x, y=None):
            PLACES[place](x, lambda: pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1)))

    _, _, x = PAIRS["linear_gaussian"].make()
    svi = pyro.infer.SVI(Scaled(), Placed(PLACES[place]), pyro.optim.Adam({"lr": 0.1}), objective)
    with pytest.raises(ppvae.ContractError, match="guide site 'z'"):
        svi.step(x)


@pytest.mark.parametrize("place", PLACES)
def test_pair_refuses_a_model_site_whose_place_would_be_miscounted(place):
    class Misplaced(ppvae.Model):
        def forward(self, x, y=None):
            PLACES[place](x, lambda: pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1)))

    _, guide, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match=r"expected model site 'z' (in the one plate|without a scale)"):
        _ = Pair(Misplaced(), guide).draw(as_batch(x)).model


def test_draw_refuses_a_scaled_observation():
    """A likelihood scaled by N / B is a habit from stock Pyro: fit weighs the batch itself."""

    class Scaled(ppvae.Model):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                with pyro.poutine.scale(scale=100.0):
                    pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), x.new_ones(5)).to_event(1), obs=x)

    _, guide, x = PAIRS["linear_gaussian"].make()
    with pytest.raises(ppvae.ContractError, match=r"model site 'x' without a scale, got 100\.0"):
        ppvae.draw(Scaled(), guide, x)


def test_draw_refuses_a_mask_on_an_enumerated_site():
    class Masked(ppvae.Guide):
        def forward(self, x, y=None):
            with pyro.plate("data", len(x)), pyro.poutine.mask(mask=torch.arange(len(x)) < 3):
                pyro.sample("z", dist.Categorical(logits=x.new_zeros(CLASSES)))

    model, _, x = PAIRS["mixture"].make()
    with pytest.raises(ppvae.ContractError, match="enumerated site 'z' without a mask"):
        ppvae.draw(model, Masked(), x)
