"""The aggregate posterior q(z) = 1/N sum_n q(z | x_n) of N data, estimated from a batch of B of them.

For a draw z_i ~ q(z | x_i) the batch gives the B densities q(z_i | x_j), of which its own, q(z_i | x_i), is far larger
than the others: it is in every batch, but only once in N data. Both estimates are weighted sums of the B densities.

*Weighted* (MWS): 1 / (N B) for each. Its mean is not q(z_i): the own density counts 1 / (N B) for 1 / N, and the others
about 1 / (N B) for 1 / B. So log q is too low: by log N where the others outweigh the own
density, by log B where it outweighs them, as in log q(z_i) of narrow posteriors. A total correlation from it is too
high by (D - 1) log N in the one case, and by up to D log N - log B in the other: fit for gradients, in which a constant
is lost, and not for values.

*Stratified* (MSS): the sum over the N data has two strata, the own datum and the N - 1 others, of which the other B - 1
of the batch are a sample without replacement. Each stratum by its own mean,

    q(z_i)  ~  1/N q(z_i | x_i)  +  (N - 1)/N  1/(B - 1) sum_{j != i} q(z_i | x_j)

so the diagonal has weight 1/N and all else (N - 1) / (N (B - 1)). Its mean over the batches that hold x_i is q(z_i).
(The paper gives one of the others, n_M, a weight of its own, (N - M) / (N M) with M = B - 1, and 1/M to the rest; this
is the mean over which of them it is: the same expectation, less variance.)

The logarithm of an unbiased estimate is too low on average, by Jensen's inequality.

Source: Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders", appendix C.
"""

import math

import torch
from torch import Tensor


def weighted(batch_size: int, num_data: int, like: Tensor | None = None) -> Tensor:
    """Log weights of the weighted estimate, (B, B), of the type and on the device of ``like``: log 1 / (N B)."""
    _require_sizes(batch_size, num_data, least=1)
    return _full(batch_size, -math.log(num_data * batch_size), like)


def stratified(batch_size: int, num_data: int, like: Tensor | None = None) -> Tensor:
    """Log weights of the stratified estimate: log 1/N on the diagonal, log (N - 1) / (N (B - 1)) off it."""
    _require_sizes(batch_size, num_data, least=2)
    weights = _full(batch_size, math.log((num_data - 1) / (num_data * (batch_size - 1))), like)
    return weights.fill_diagonal_(-math.log(num_data))


def _full(size: int, value: float, like: Tensor | None) -> Tensor:
    return torch.full((size, size), value) if like is None else like.new_full((size, size), value)


def log_joint_and_marginals(log_q: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Estimates of log q(z_i), shape (..., B), and of log q(z_id) for each element d, shape (..., B, D), in nats.

    Args:
        log_q: log q(z_id | x_j), shape (..., B, B, D), i before j; q(z | x) a product over d.
        log_weights: shape (B, B), of :func:`weighted` or :func:`stratified`.
    """
    joint = (log_q.sum(-1) + log_weights).logsumexp(-1)
    return joint, (log_q + log_weights.unsqueeze(-1)).logsumexp(-2)


def _require_sizes(batch_size: int, num_data: int, least: int) -> None:
    if batch_size < least:
        raise ValueError(f"expected a batch of at least {least}, got {batch_size}")
    if num_data < batch_size:
        raise ValueError(f"expected at least as many data as the batch has, {batch_size}, got num_data={num_data}")
