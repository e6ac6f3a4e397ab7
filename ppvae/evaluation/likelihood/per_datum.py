"""Estimates for each datum, with the two errors of their mean."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class PerDatum:
    """An estimate for each of B data, with its Monte Carlo standard error; shapes (B,), in nats.

    Two errors of the mean over the data are told apart: :attr:`simulation_error` of the estimate for these very data,
    and :attr:`sampling_error` of these data as a sample of all data.

    Example:

        >>> import torch
        >>> estimate = PerDatum(torch.tensor([-1.0, -3.0]), torch.tensor([0.3, 0.4]))
        >>> estimate.mean, round(estimate.simulation_error, 6), round(estimate.sampling_error, 6)
        (-2.0, 0.25, 1.0)
    """

    value: Tensor
    standard_error: Tensor

    @property
    def mean(self) -> float:
        """Mean of ``value`` over the data."""
        return self.value.mean().item()

    @property
    def simulation_error(self) -> float:
        """Monte Carlo standard error of :attr:`mean` for these data; it decreases with the number of draws."""
        return (self.standard_error.square().sum().sqrt() / len(self.value)).item()

    @property
    def sampling_error(self) -> float:
        """Standard error of :attr:`mean` over the data, sd / sqrt(B); it decreases with the number of data."""
        return sampling_error(self.value)


def sampling_error(value: Tensor) -> float:
    """Standard error of the mean of values (B,) as a sample, sd / sqrt(B); NaN for a single one.

    Example:

        >>> import torch
        >>> round(sampling_error(torch.tensor([-1.0, -3.0])), 6)
        1.0
    """
    return (value.std() / len(value) ** 0.5).item() if len(value) > 1 else float("nan")
