"""What every estimate of a quantity of each datum has."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class PerDatum:
    """An estimate for each of B data, with its Monte Carlo standard error; shapes (B,), nats."""

    value: Tensor
    standard_error: Tensor

    @property
    def mean(self) -> float:
        """Mean of ``value`` over the data."""
        return self.value.mean().item()

    @property
    def mean_standard_error(self) -> float:
        """Monte Carlo standard error of :attr:`mean` for these data (not their sampling error)."""
        return (self.standard_error.square().sum().sqrt() / len(self.value)).item()


def sampling_error(value: Tensor) -> float:
    """Standard error of the mean of values (B,) as a draw of B data: sd / sqrt(B)."""
    return (value.std() / len(value) ** 0.5).item()
