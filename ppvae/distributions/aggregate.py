"""The aggregate posterior q(z) = 1/N sum_n q(z | x_n) of N data, estimated from a batch of B data.

For a draw z_i ~ q(z | x_i) the batch gives B densities q(z_i | x_j). The draw's own density q(z_i | x_i) is usually far
larger than the others. It is in every batch, although it is only one of N terms. Both estimates are weighted sums of
the B densities.

*Weighted* (MWS): weight 1 / (N B) for each. The estimate is biased: the own density gets 1 / (N B) instead of 1 / N,
and the others get 1 / (N B) instead of about 1 / B. So log q(z_i) is too low: by log N where the others outweigh the
own density, by log B where the own density outweighs them (narrow posteriors). The total correlation is then too high
by (D - 1) log N in the first case, and by up to D log N - log B in the second. Gradients do not depend on such a
constant, but values do, so use this estimate for gradients only.

*Stratified* (MSS): the sum over N data has two strata, the own datum and the N - 1 others. The other B - 1 data of the
batch are a sample of the second stratum without replacement. With the mean of each stratum,

    q(z_i)  ~  1/N q(z_i | x_i)  +  (N - 1)/N  1/(B - 1) sum_{j != i} q(z_i | x_j)

so the diagonal has weight 1/N and every other element (N - 1) / (N (B - 1)). The mean over all batches that hold x_i is
q(z_i). (The paper gives one of the others, n_M, the weight (N - M) / (N M) with M = B - 1, and 1/M to the
rest. Here each weight is the mean over the choice of n_M: the same expectation with less variance.)

The logarithm of an unbiased estimate is too low on average, by Jensen's inequality.

Source: Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders", appendix C.
"""

import math

import torch
from torch import Tensor


def weighted(batch_size: int, num_data: int, template: Tensor | None = None) -> Tensor:
    """Log weights of the weighted estimate, log 1 / (N B), shape (B, B).

    Args:
        batch_size: B, at least 1.
        num_data: N, at least B.
        template: gives the type and the device of the result; torch's defaults if None.

    Raises ValueError for sizes out of range.

    Example:

        >>> weighted(2, 5).exp()
        tensor([[0.1000, 0.1000],
                [0.1000, 0.1000]])
    """
    _require_sizes(batch_size, num_data, least=1)
    return _full(batch_size, -math.log(num_data * batch_size), template)


def stratified(batch_size: int, num_data: int, template: Tensor | None = None) -> Tensor:
    """Log weights of the stratified estimate, shape (B, B): log 1/N on the diagonal, log (N - 1) / (N (B - 1)) off it.

    Args:
        batch_size: B, at least 2.
        num_data: N, at least B.
        template: gives the type and the device of the result; torch's defaults if None.

    Raises ValueError for sizes out of range.

    Example:

        >>> stratified(2, 5).exp()
        tensor([[0.2000, 0.8000],
                [0.8000, 0.2000]])
    """
    _require_sizes(batch_size, num_data, least=2)
    weights = _full(batch_size, math.log((num_data - 1) / (num_data * (batch_size - 1))), template)
    return weights.fill_diagonal_(-math.log(num_data))


def log_joint_and_marginals(log_q: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Estimates of log q(z_i), shape (..., B), and of log q(z_id) for each element d, shape (..., B, D), in nats.

    Args:
        log_q: log q(z_id | x_j), shape (..., B, B, D), i before j; q(z | x) is a product over d.
        log_weights: shape (B, B), from :func:`weighted` or :func:`stratified`.

    Example:

        >>> joint, marginals = log_joint_and_marginals(torch.zeros(4, 4, 3), stratified(4, 4))
        >>> joint.shape, marginals.shape
        (torch.Size([4]), torch.Size([4, 3]))
    """
    joint = (log_q.sum(-1) + log_weights).logsumexp(-1)
    return joint, (log_q + log_weights.unsqueeze(-1)).logsumexp(-2)


def _full(size: int, value: float, template: Tensor | None) -> Tensor:
    return torch.full((size, size), value) if template is None else template.new_full((size, size), value)


def _require_sizes(batch_size: int, num_data: int, least: int) -> None:
    if batch_size < least:
        raise ValueError(f"expected a batch of at least {least}, got {batch_size}")
    if num_data < batch_size:
        raise ValueError(f"expected at least as many data as the batch has, {batch_size}, got num_data={num_data}")
