"""Fast functions against float64, autodiff and every way in which torch differentiates."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.functional import binary_cross_entropy_with_logits

from ppvae.nn.functional import bernoulli_log_prob, indicators, softplus


def reference(value: torch.Tensor, logits: torch.Tensor, event_dim: int) -> torch.Tensor:
    value, logits = torch.broadcast_tensors(value.double(), logits.double())
    terms = -binary_cross_entropy_with_logits(logits, value, reduction="none")
    return terms.flatten(terms.dim() - event_dim).sum(-1) if event_dim else terms


def arguments(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.rand(shape).double(), 3 * torch.randn(4, *shape).double()


@pytest.mark.parametrize("size", [1, 5, 7, 8, 9, 16, 23, 784])
def test_bernoulli_log_prob_sums_events_of_any_size(size):
    value, logits = arguments(2, size)
    torch.testing.assert_close(
        bernoulli_log_prob(value, logits, 1), reference(value, logits, 1), rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("event_dim", [0, 1, 2, 3])
def test_bernoulli_log_prob_sums_the_rightmost_dimensions(event_dim):
    value, logits = arguments(2, 3, 5)
    found = bernoulli_log_prob(value, logits, event_dim)
    assert found.shape == logits.shape[: 4 - event_dim]
    torch.testing.assert_close(found, reference(value, logits, event_dim), rtol=1e-13, atol=1e-13)


def test_bernoulli_log_prob_has_the_error_of_the_float32_sum():
    torch.manual_seed(0)
    logits, value = 3 * torch.randn(1000, 784), torch.rand(1000, 784).round()
    exact = reference(value, logits, 1)
    error = (bernoulli_log_prob(value, logits, 1) - exact).abs().max()
    of_sum = (reference(value, logits, 0).float().sum(-1) - exact).abs().max()
    assert error < 3e-4
    assert error < 4 * of_sum


@pytest.mark.parametrize("shapes", [((3, 5), (3, 5)), ((5,), (2, 3, 5)), ((2, 3, 5), (5,)), ((), (3, 5))])
def test_bernoulli_log_prob_gradients_have_the_shapes_of_the_arguments(shapes):
    torch.manual_seed(0)
    value = torch.rand(shapes[0]).double().requires_grad_()
    logits = torch.randn(shapes[1]).double().requires_grad_()
    assert torch.autograd.gradcheck(bernoulli_log_prob, (value, logits, 1), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(bernoulli_log_prob, (value, logits, 1))


def test_bernoulli_log_prob_gradient_at_zero_logits_is_value_less_one_half():
    logits = torch.zeros(3, requires_grad=True)
    bernoulli_log_prob(torch.tensor([0.0, 0.25, 1.0]), logits, 1).backward()
    assert logits.grad.tolist() == [-0.5, -0.25, 0.5]


def test_bernoulli_log_prob_is_exact_at_extreme_logits():
    logits = torch.tensor([1e30, -1e30, 1e4, -1e4], requires_grad=True)
    found = bernoulli_log_prob(torch.tensor([1.0, 0.0, 0.0, 1.0]), logits, 0)
    found.sum().backward()
    assert found.tolist() == [0.0, 0.0, -1e4, -1e4]
    assert logits.grad.tolist() == [0.0, 0.0, -1.0, 1.0]


def test_bernoulli_log_prob_works_under_transforms_of_torch_func():
    value, logits = arguments(11)
    curvature = torch.func.hessian(lambda row: bernoulli_log_prob(value, row, 1))(logits[0])
    probability = logits[0].sigmoid()
    torch.testing.assert_close(curvature, torch.diag(-probability * (1 - probability)))
    rows = torch.func.vmap(torch.func.grad(lambda row: bernoulli_log_prob(value, row, 1)))(logits)
    torch.testing.assert_close(rows, value - logits.sigmoid())


def test_bernoulli_log_prob_can_be_captured_with_its_gradient():
    value, logits = arguments(2, 11)

    def loss_and_gradient(value, logits):
        loss = bernoulli_log_prob(value, logits, 1).sum()
        return loss, torch.autograd.grad(loss, logits)[0]

    graph = make_fx(loss_and_gradient)(value, logits.clone().requires_grad_())
    other = -2 * logits
    loss, gradient = graph(value, other.requires_grad_())
    torch.testing.assert_close(loss, reference(value, other, 1).sum())
    torch.testing.assert_close(gradient, value - other.sigmoid())


@pytest.mark.parametrize("function", [lambda x: softplus(x), lambda x: bernoulli_log_prob(x.new_ones(()), x, 1)])
def test_functions_run_on_the_meta_device(function):
    x = torch.empty(3, 13, device="meta", requires_grad=True)
    (gradient,) = torch.autograd.grad(function(x).sum(), x)
    assert gradient.shape == (3, 13)


def test_softplus_is_exact_in_float64():
    x = torch.tensor([-700.0, -40.0, -1.0, 0.0, 1e-20, 1.0, 39.0, 41.0, 1e300]).double()
    exact = torch.where(x < 0, x.exp().log1p(), x + (-x).exp().log1p())
    torch.testing.assert_close(softplus(x), exact, rtol=1e-15, atol=0)


def test_softplus_has_one_rounding_of_float32():
    x = torch.linspace(-120, 120, 10_001)
    error = (softplus(x).double() - softplus(x.double())).abs()
    assert (error <= 2**-23 * x.abs().clamp(min=1)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus_gradient_is_the_sigmoid(dtype):
    x = torch.tensor([-1e4, -3.0, 0.0, 2.0, 1e4], dtype=dtype, requires_grad=True)
    softplus(x).sum().backward()
    torch.testing.assert_close(x.grad, x.detach().sigmoid())


@pytest.mark.parametrize("shape", [(), (4,), (3, 1, 1)])
def test_indicators_are_one_hot(shape):
    classes = torch.randint(5, shape)
    found = indicators(classes, 5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.nn.functional.one_hot(classes, 5).float())
    assert indicators(classes.double(), 5).equal(found)  # a Bernoulli's values are floating
