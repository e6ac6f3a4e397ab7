"""The contract tests: every pair with every objective."""

import pyro
import pytest
import torch

import ppvae
from tests.catalogue import LABELS, OBJECTIVES, PAIRS

ALL = [(pair, objective) for pair in PAIRS for objective in OBJECTIVES]
TRIPLES = [(pair, objective) for pair, objective in ALL if OBJECTIVES[objective].fits(PAIRS[pair])]


def labels_for(pair: str):
    return LABELS if PAIRS[pair].labelled else None


@pytest.mark.parametrize("pair", PAIRS)
def test_pair_keeps_the_contract(pair):
    model, guide, x = PAIRS[pair].make()
    ppvae.check_pair(model, guide, x, labels_for(pair))
    ppvae.check_pair(model, guide, x)


@pytest.mark.parametrize(("pair", "objective"), TRIPLES)
def test_loss_is_finite_and_every_parameter_that_matters_gets_a_gradient(pair, objective):
    model, guide, x = PAIRS[pair].make()
    loss = OBJECTIVES[objective].make().differentiable_loss(model, guide, x, labels_for(pair))
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    for name, parameter in OBJECTIVES[objective].taught(PAIRS[pair], model, guide).items():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("pair", "objective"), sorted(set(ALL) - set(TRIPLES)))
def test_a_pair_that_does_not_give_what_is_read_of_it_is_refused(pair, objective):
    model, guide, x = PAIRS[pair].make()
    expected = (
        r"expected (a guide that can score|a .*latent|the name of a latent|q\(z \| x\) (as a product|with a formula)|"
        r"a fixed prior)"
    )
    with pytest.raises(ppvae.ContractError, match=expected):
        OBJECTIVES[objective].make().differentiable_loss(model, guide, x)


def test_iwae_with_every_latent_enumerated_does_not_depend_on_the_guide():
    model, guide, x = PAIRS["mixture"].make()
    ppvae.IWAE(2).differentiable_loss(model, guide, x).backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in guide.parameters())


@pytest.mark.parametrize(("pair", "objective"), TRIPLES)
def test_trains_in_a_stock_svi_loop(pair, objective):
    pyro.clear_param_store()
    model, guide, x = PAIRS[pair].make()
    moving = OBJECTIVES[objective].taught(PAIRS[pair], model, guide).values()
    before = [p.detach().clone() for p in moving]
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.01}), loss=OBJECTIVES[objective].make())
    losses = [svi.step(x, labels_for(pair)) for _ in range(3)]
    assert all(torch.isfinite(torch.tensor(losses)))
    assert all((p - b).abs().max() > 0 for p, b in zip(moving, before, strict=True))


@pytest.mark.parametrize("pair", PAIRS)
def test_weights_survive_a_checkpoint(pair, tmp_path):
    model, guide, x = PAIRS[pair].make()
    ppvae.fit(model, guide, ppvae.ELBO(), x, epochs=1, batch_size=3, run_dir=tmp_path, progress=False)
    again_model, again_guide, _ = PAIRS[pair].make(seed=1)
    ppvae.load_checkpoint(tmp_path / "last.safetensors", again_model, again_guide)
    for module, again in ((model, again_model), (guide, again_guide)):
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize("pair", PAIRS)
def test_log_marginal_of_every_pair(pair):
    model, guide, x = PAIRS[pair].make()
    result = ppvae.log_marginal(model, guide, x, num_particles=30)
    assert result.value.shape == result.ess.shape == result.khat.shape == (len(x),)
    assert torch.isfinite(result.value).all()
