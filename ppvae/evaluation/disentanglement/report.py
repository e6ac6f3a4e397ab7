"""All disentanglement metrics of one pair, in one call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from ppvae.data import Dataset
from ppvae.errors import DataError
from ppvae.evaluation.disentanglement.information import mutual_information
from ppvae.evaluation.disentanglement.metrics import SCORES, Settings
from ppvae.evaluation.disentanglement.representation import Representation, represent
from ppvae.evaluation.disentanglement.total_correlation import (
    AggregatePosterior,
    aggregate_posterior,
    critic_correlation,
    minibatch_correlation,
)
from ppvae.evaluation.likelihood.per_datum import sampling_error
from ppvae.evaluation.progress import tracked

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

HEATMAP_SAMPLES = 10_000

Critic = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Disentanglement:
    """All metrics of one representation, as returned by :func:`disentanglement` and :func:`score`.

    Attributes:
        scores: by name, each from 0 to 1, without those that were left out.
        aggregate: total correlation and the other parts of the rate; None if it was left out or q is not a product of
            Normals.
        estimates: further estimates of the total correlation with their standard errors, nats: "minibatch" (stratified
            sampling) and, if a critic was given, "critic".
        mutual_information: I(z_d; v_k) in nats, shape (D, F).
        representation: the codes.
        seed: of all draws.

    Example:

        >>> import torch
        >>> from ppvae.data import Factors
        >>> from ppvae.evaluation.disentanglement import METRICS, Representation, score
        >>> grid = Factors(("shape", "x"), (3, 4))
        >>> r = Representation(grid, grid.values(torch.arange(12)).float())
        >>> found = score(r, leave_out=[name for name in METRICS if name != "mig"])
        >>> {name: round(value, 2) for name, value in found.scores.items()}
        {'mig': 1.0}
    """

    scores: dict[str, float]
    aggregate: AggregatePosterior | None
    estimates: dict[str, tuple[float, float]]
    mutual_information: np.ndarray
    representation: Representation
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """All numbers, in nats, ready for JSON; None for what was not computed."""
        kl, aggregate = self.representation.kl, self.aggregate
        return {
            **self.scores,
            "rate": None if kl is None else kl.sum().item(),
            "aggregate": None if aggregate is None else {name: getattr(aggregate, name) for name in _AGGREGATE},
            **{f"total_correlation_by_{name}": value for name, (value, _) in self.estimates.items()},
            "kl_per_dimension": None if kl is None else kl.tolist(),
            "factors": list(self.representation.varying.names),
            "mutual_information_by_factor": self.mutual_information.tolist(),
            "seed": self.seed,
        }

    def table(self) -> "Table":
        """A table with a row for each metric, then the parts of the rate."""
        from rich.box import SIMPLE
        from rich.table import Table

        codes = self.representation.codes
        title = f"{codes.shape[1]} dimensions, {len(codes)} rows"
        table = Table("", "", "", title=title, box=SIMPLE, show_header=False)
        for name, value in self.scores.items():
            table.add_row(name.replace("_", " "), f"{value:.3f}", "of 1")
        if self.aggregate is not None:
            table.add_section()
            for name, unit in _AGGREGATE.items():
                if unit is not None and getattr(self.aggregate, name) is not None:
                    table.add_row(name.replace("_", " "), self._cell(name), unit.format(self.aggregate.log_n))
            for name, (value, error) in self.estimates.items():
                table.add_row(f"total correlation, {name}", f"{value:.3f} ± {error:.3f}", "nats, biased")
        return table

    def print(self) -> None:
        """Print :meth:`table`."""
        from rich.console import Console

        Console().print(self.table())

    def plot(self) -> "Figure":
        """The mutual information of dimensions and factors, by :func:`ppvae.plots.mutual_information_heatmap`."""
        from ppvae.plots import mutual_information_heatmap

        return mutual_information_heatmap(self.mutual_information, self.representation.varying.names)

    def _cell(self, name: str) -> str:
        if name == "rate" and self.representation.kl is not None:
            return f"{self.representation.kl.sum():.3f}"  # exact, where the aggregate has the sum of sampled parts
        error = getattr(self.aggregate, f"{name}_error", None)
        return f"{getattr(self.aggregate, name):.3f}" + ("" if error is None else f" ± {error:.3f}")


def disentanglement(
    model: nn.Module,
    guide: nn.Module,
    data: Dataset,
    *,
    site: str = "z",
    critic: Critic | None = None,
    seed: int = 0,
    progress: bool = False,
    **settings: Any,
) -> Disentanglement:
    """All metrics of how the codes of a guide represent the ground-truth factors of a data set.

    Args:
        model: generative model; only its prior is used.
        guide: its guide.
        data: made from ground-truth factors, complete.
        site: the latent.
        critic: z (M, D) -> an estimate of log q(z) / prod_d q(z_d), (M,), such as ``train_critic(z).log_ratio`` or
            ``objective.players[0].module.log_ratio`` of :func:`ppvae.factor_vae`. Its total correlation is reported
            with the exact one. None for no such estimate.
        seed: of all draws: the same seed gives the same numbers.
        progress: show progress bars.
        settings: fields of :class:`~ppvae.evaluation.disentanglement.metrics.Settings`: ``leave_out``, ``num_train``,
            ``num_test``, ``num_draws``, ``batch_size``, ``jobs``.

    Raises DataError for data without factors. Settings are checked before the data are encoded: ValueError for bad
    values, TypeError for unknown names.

    Example:

        >>> import torch
        >>> from ppvae import disentanglement
        >>> from ppvae.data import Dataset, Factors
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> from ppvae.nn import MLP
        >>> grid = Factors(("shape", "x"), (3, 4))
        >>> data = Dataset(grid.values(torch.arange(12)).float(), factors=grid)
        >>> model, guide = LinearGaussian(torch.eye(2), torch.zeros(2), 0.5), MeanFieldGaussian(MLP(2, [], 4))
        >>> sizes = {"num_train": 100, "num_test": 50, "num_draws": 10}
        >>> list(disentanglement(model, guide, data, leave_out=["dci", "sap"], **sizes).scores)
        ['higgins', 'factor_vae', 'mig', 'mig_of_draws', 'modularity', 'explicitness', 'irs']
    """
    Settings.named(**settings)
    representation = represent(model, guide, data, site=site, seed=seed, progress=progress)
    return score(representation, critic=critic, seed=seed, progress=progress, **settings)


def score(
    representation: Representation,
    *,
    critic: Critic | None = None,
    seed: int = 0,
    progress: bool = False,
    **settings: Any,
) -> Disentanglement:
    """:func:`disentanglement` of given codes.

    Args:
        representation: codes of a grid.
        critic: as in :func:`disentanglement`; not used if "aggregate" is left out.
        seed: of all draws.
        progress: show progress bars.
        settings: as in :func:`disentanglement`.

    Raises DataError for a critic where q is not a product of Normals, ValueError and TypeError for bad settings.

    Example:

        >>> import torch
        >>> from ppvae.data import Factors
        >>> from ppvae.evaluation.disentanglement import Representation, score
        >>> grid = Factors(("shape", "x"), (3, 4))
        >>> r = Representation(grid, grid.values(torch.arange(12)).float())
        >>> score(r, leave_out=["dci", "sap"], num_train=100, num_test=50).scores["factor_vae"]
        1.0
    """
    chosen = Settings.named(**settings)
    if critic is not None:
        _check_critic(critic, representation, chosen)
    wanted = [name for name in SCORES if name not in chosen.leave_out]
    scores: dict[str, float] = {}
    for name in tracked(wanted, "metrics", progress):
        scores |= SCORES[name](representation, chosen, seed)
    aggregate, estimates = None, {}
    if "aggregate" not in chosen.leave_out and representation.scales is not None:
        parts = representation.codes, representation.scales
        options: dict[str, Any] = {"num_draws": chosen.num_draws, "seed": seed, "progress": progress}
        aggregate = aggregate_posterior(*parts, representation.prior, **options)
        estimates = _estimates(*parts, critic, chosen.batch_size, seed)
    sample = representation.sample(HEATMAP_SAMPLES, np.random.default_rng(seed))
    return Disentanglement(scores, aggregate, estimates, mutual_information(*sample), representation, seed)


def _check_critic(critic: Critic, representation: Representation, settings: Settings) -> None:
    """Raise an error, before anything is computed, for a critic that cannot be called with draws of these codes."""
    if representation.scales is None:
        raise DataError(
            "expected q(z | x) to be a product of Normals, from which a critic needs draws, got codes without scales; "
            "leave out the critic"
        )
    if "aggregate" not in settings.leave_out:
        critic(representation.codes[:2])


def _estimates(
    codes: Tensor, scales: Tensor, critic: Critic | None, batch_size: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Biased estimates of the total correlation, each with its standard error, nats."""
    found = {"minibatch": minibatch_correlation(codes, scales, batch_size=batch_size, seed=seed)}
    if critic is not None:
        found["critic"] = critic_correlation(critic, codes, scales, seed=seed)
    return {name: (value.mean().item(), sampling_error(value)) for name, value in found.items()}


_AGGREGATE = {  # the last column of the table; None for numbers that have no row of their own
    "total_correlation": "nats",
    "total_correlation_error": None,
    "mutual_information": "nats, at most log N = {:.2f}",
    "mutual_information_error": None,
    "dimension_wise_kl": "nats",
    "rate": "nats",
    "log_n": None,
}
