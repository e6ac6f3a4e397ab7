"""Wake-sleep and the forward KL, against closed forms."""

import pyro
import pytest
import torch
from pyro import distributions as dist

import ppvae
from tests.catalogue import ALL_PAIRS, LABELS, PAIRS
from tests.ppvae.objectives.estimates import gradient, gradients, loss, per_row, plain_functions, rows
from tests.ppvae.oracles import Exact, linear_gaussian, nearly_exact


def test_wake_sleep_bound_is_the_evidence_at_the_exact_posterior():
    model, x = linear_gaussian()
    torch.testing.assert_close(-loss(ppvae.ReweightedWakeSleep(3), model, Exact(model), x), model.log_evidence(x))


@pytest.mark.parametrize("insomnia", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("pair", ["label_style", "label", "user", "gaussian_vae", "mixture"])
def test_wake_sleep_has_the_value_and_the_model_gradient_of_iwae(pair, insomnia):
    model, guide, x = PAIRS[pair].make()
    guide.eval()
    y = LABELS if PAIRS[pair].labelled else None
    ours, same = ppvae.ReweightedWakeSleep(5, insomnia), ppvae.IWAE(5)
    torch.testing.assert_close(loss(ours, model, guide, x, y), loss(same, model, guide, x, y))
    torch.testing.assert_close(
        gradient(ours, model, guide, x, y, of=model), gradient(same, model, guide, x, y, of=model)
    )


def test_wake_update_follows_the_posterior_and_its_bias_falls_with_particles():
    model, guide, x = rows(2000)
    posterior = model.posterior(x)
    q = dist.Normal(guide.loc, guide.log_scale.exp())
    # - E_p [d log q / d phi], the gradient of the forward KL, in closed form
    shift = (posterior.mean - guide.loc) / q.scale.square()
    square = (posterior.variance + (posterior.mean - guide.loc).square()) / q.scale.square()
    exact = torch.cat([-shift, 1 - square], -1).detach()[0]
    distance = []
    for k in (2, 20, 400):
        sample = per_row(ppvae.ReweightedWakeSleep(k), model, guide, x)
        distance.append((sample.mean(0) - exact).abs().max())
    error = sample.std(0) / len(x) ** 0.5
    assert distance[0] > distance[1] > distance[2]
    assert distance[0] > 0.2
    assert ((sample.mean(0) - exact).abs() < 4 * error + 0.02).all()


def test_forward_kl_gradient_vanishes_on_average_at_the_exact_marginals():
    model, _ = linear_gaussian()
    guide = nearly_exact(model, widen=1.0)  # the exact mean and the posterior's marginal scales
    x = torch.zeros(3000, 5).double()
    with torch.no_grad():  # the best diagonal q in forward KL has the posterior's marginals
        posterior = model.posterior(x[:1])
    torch.testing.assert_close(guide.encoder(x[:1])[..., 2:].exp(), posterior.stddev)
    sample = gradients(ppvae.ForwardKL(), model, guide, x, repeats=60)
    assert (sample.mean(0).abs() < 4 * sample.std(0) / 60**0.5).all()
    entropy = torch.distributions.Normal(0.0, posterior.stddev).entropy().sum()
    cross = loss(ppvae.ForwardKL(), model, guide, x)
    assert (cross.mean() - entropy).abs() < 4 * cross.std() / len(x) ** 0.5


def test_forward_kl_gradient_is_that_of_the_closed_form():
    """E[-log q(z | x)] of a linear guide with mean A x + c and fixed scales, x = W z + b + s e."""
    model, _ = linear_gaussian()
    guide = nearly_exact(model, widen=1.3)
    (layer,) = guide.encoder.layers
    with torch.no_grad():
        layer.bias[:2] += 0.3
    weight, bias = layer.weight, layer.bias
    residual = torch.eye(2).double() - weight[:2] @ model.weight
    noise = (2 * model.log_scale).exp() * weight[:2].square().sum(-1)
    square = residual.square().sum(-1) + noise + (weight[:2] @ model.bias + bias[:2]).square()
    cross_entropy = (bias[2:] + 0.5 * square / (2 * bias[2:]).exp()).sum()
    exact_weight, exact_bias = torch.autograd.grad(cross_entropy, [weight, bias])
    x = torch.zeros(1000, 5).double()
    sample = gradients(ppvae.ForwardKL(), model, guide, x, repeats=60) / len(x)
    for found, exact in ((sample[:, :10], exact_weight[:2].flatten()), (sample[:, 20:], exact_bias)):
        assert ((found.mean(0) - exact).abs() < 4 * found.std(0) / 60**0.5).all()
    assert (exact_bias[:2].abs() > 0.1).all()


@pytest.mark.parametrize("pair", ["gaussian_vae", "label_style", "conditional", "labelled_condition"])
def test_forward_kl_does_not_read_the_values_of_x(pair):
    model, guide, batch = ALL_PAIRS[pair].make_batch()
    y = LABELS.clamp(min=0) if ALL_PAIRS[pair].labelled else batch.y

    def value(x):
        torch.manual_seed(0)
        return ppvae.ForwardKL().differentiable_loss(model, guide, x, y, **batch.given)

    assert value(batch.x) == value(1 - batch.x)


def test_forward_kl_hides_the_elements_that_are_missing_from_the_data():
    """The guide learns q(z | observed elements) for the patterns that the data have, and not for complete data."""
    model, guide, x = PAIRS["missing"].make()
    seen = []
    guide.encoder.register_forward_hook(lambda module, args, _: seen.append(args[0]))
    ppvae.ForwardKL().differentiable_loss(model, guide, x).backward()
    *_, simulated = seen
    assert torch.equal(simulated.isnan(), x.isnan())
    assert (simulated != x)[~x.isnan()].all()
    assert all(torch.isfinite(p.grad).all() for p in guide.parameters())


def test_forward_kl_of_a_pair_that_needs_labels_simulates_given_them():
    """The class is a condition, and no latent: x and z are drawn for the labels of the batch."""
    model, guide, batch = ALL_PAIRS["labelled_condition"].make_batch()
    objective = ppvae.ForwardKL()
    objective.differentiable_loss(model, guide, batch.x, batch.y).backward()
    assert all(p.grad.abs().sum() > 0 for p in guide.parameters())
    other = (batch.y + 1) % 4
    torch.manual_seed(0)
    one = objective.loss(model, guide, batch.x, batch.y)
    torch.manual_seed(0)
    assert one != objective.loss(model, guide, batch.x, other)


def test_sleep_phase_leaves_the_model_in_its_mode_and_gives_it_no_gradient():
    model, guide, x = PAIRS["gaussian_vae"].make()
    ppvae.ForwardKL().differentiable_loss(model, guide, x).backward()
    assert all(p.grad is None for p in model.parameters())
    assert model.training


NEEDS_SCORE = [ppvae.ReweightedWakeSleep(2), ppvae.ReweightedWakeSleep(2, insomnia=0.0), ppvae.ForwardKL()]


@pytest.mark.parametrize("objective", NEEDS_SCORE, ids=["wake", "sleep", "forward kl"])
@pytest.mark.parametrize("declared", [True, False])
def test_wake_sleep_refuses_a_guide_that_cannot_score(objective, declared):
    model, guide, x = PAIRS["flow_planar"].make()
    guide.can_score = not declared
    with pytest.raises(ppvae.ContractError, match=r"can score.*FlowGuide.*use a guide with can_score"):
        objective.differentiable_loss(model, guide, x)


@pytest.mark.parametrize("objective", NEEDS_SCORE, ids=["wake", "sleep", "forward kl"])
def test_wake_sleep_trains_a_model_and_a_guide_that_are_functions(objective):
    """Nothing is held fixed here, so that functions with ``pyro.module`` train in a stock loop."""
    pyro.clear_param_store()
    model, guide, decoder, encoder = plain_functions()
    before = [p.detach().clone() for p in encoder.parameters()], [p.detach().clone() for p in decoder.parameters()]
    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), objective)
    svi.step(torch.randn(4, 5).double())
    moved = [
        [not torch.equal(p, b) for p, b in zip(module.parameters(), old, strict=True)]
        for module, old in zip((encoder, decoder), before, strict=True)
    ]
    assert all(moved[0])
    assert all(moved[1]) != isinstance(objective, ppvae.ForwardKL)


@pytest.mark.parametrize("insomnia", [-0.1, 1.1, float("nan")])
def test_wake_sleep_refuses_a_share_out_of_range(insomnia):
    with pytest.raises(ValueError, match="insomnia from 0 to 1"):
        ppvae.ReweightedWakeSleep(5, insomnia)


def test_wake_sleep_refuses_a_single_particle_for_the_wake_update():
    with pytest.raises(ValueError, match="at least 2 particles"):
        ppvae.ReweightedWakeSleep(1)
    ppvae.ReweightedWakeSleep(1, insomnia=0.0)
