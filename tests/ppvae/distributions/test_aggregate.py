"""Estimates of the aggregate posterior from a batch, compared with their mean over all batches."""

import math
from itertools import combinations

import pytest
import torch

from ppvae.distributions.aggregate import log_joint_and_marginals, stratified, weighted

N, D = 6, 3


def densities() -> torch.Tensor:
    """log q(z_id | x_j) for one draw of each of N data, (N, N, D); the own densities are by far the largest."""
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(N, D, generator=generator).double()
    z = loc + 0.1 * torch.randn(N, D, generator=generator).double()
    return torch.distributions.Normal(loc, 0.3).log_prob(z.unsqueeze(1))


def mean_over_batches(estimate, size: int, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of the estimates of q(z_row) and q(z_row,d) over all batches of this size that hold the row."""
    joint, marginals = [], []
    for others in combinations([n for n in range(N) if n != row], size - 1):
        index = torch.tensor([row, *others])
        one, each = log_joint_and_marginals(densities()[index][:, index], estimate(size, N).double())
        joint.append(one[0].exp())
        marginals.append(each[0].exp())
    return torch.stack(joint).mean(), torch.stack(marginals).mean(0)


@pytest.mark.parametrize("row", range(N))
@pytest.mark.parametrize("size", [2, 3, 5])
def test_stratified_estimate_is_unbiased_over_all_batches(size, row):
    joint, marginals = mean_over_batches(stratified, size, row)
    torch.testing.assert_close(joint, densities()[row].sum(-1).exp().mean())
    torch.testing.assert_close(marginals, densities()[row].exp().mean(0))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_weighted_estimate_has_the_stated_bias(size):
    joint, _ = mean_over_batches(weighted, size, row=0)
    others = densities()[0].sum(-1).exp()
    own, others = others[0], others[1:]
    torch.testing.assert_close(joint, (own + (size - 1) * others.mean()) / (N * size))
    assert joint < 0.7 * densities()[0].sum(-1).exp().mean()


def test_weighted_estimate_is_too_low_by_log_n_or_by_log_b():
    rows, size, elements = 10_000, 64, 3000
    log_q = torch.full((size, size, elements), -0.01).double()  # the own density dominates the joint, not the marginals
    log_q.diagonal(dim1=0, dim2=1).zero_()
    joint, marginals = log_joint_and_marginals(log_q, weighted(size, rows).double())
    exact_joint = math.log((1 + (rows - 1) * math.exp(-0.01 * elements)) / rows)
    exact_marginal = math.log((1 + (rows - 1) * math.exp(-0.01)) / rows)
    assert (joint - exact_joint).mean() == pytest.approx(-math.log(size), abs=1e-6)
    assert (marginals - exact_marginal).mean() == pytest.approx(-math.log(rows), abs=1e-3)
    bias = (joint - marginals.sum(-1)).mean() - (exact_joint - elements * exact_marginal)
    assert bias == pytest.approx(elements * math.log(rows) - math.log(size), rel=1e-4)


def test_estimates_of_one_batch_of_all_data_are_exact():
    exact = densities().sum(-1).exp().mean(1).log()
    torch.testing.assert_close(log_joint_and_marginals(densities(), stratified(N, N).double())[0], exact)
    torch.testing.assert_close(
        log_joint_and_marginals(densities(), weighted(N, N).double())[0] + torch.tensor(N).log(), exact
    )


def test_stratified_weights_on_and_off_the_diagonal():
    weights = stratified(4, 100).exp()
    torch.testing.assert_close(weights.diagonal(), torch.full((4,), 0.01))
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert (weights[~torch.eye(4, dtype=bool)] == weights[0, 1]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stratified(1, 10), "batch of at least 2, got 1"),
        (lambda: weighted(0, 10), "batch of at least 1, got 0"),
        (lambda: stratified(8, 7), "at least as many data as the batch has, 8, got num_data=7"),
    ],
)
def test_weights_refuse_sizes_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [weighted, stratified])
def test_weights_have_the_type_of_the_template(make):
    assert make(3, 10, template=torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    torch.testing.assert_close(make(3, 10, template=torch.zeros(1, dtype=torch.float64)).float(), make(3, 10))
