"""Metrics that hold one factor fixed and predict which: Higgins' classifier and FactorVAE's majority vote."""

import numpy as np

from ppvae.evaluation.disentanglement.representation import Representation, require_at_least

MIN_STD = 0.05  # dimensions of a smaller standard deviation do not vote
BLOCK = 1000  # votes computed at once, which bounds the memory


def higgins(
    representation: Representation,
    *,
    batch_size: int = 64,
    num_train: int = 10_000,
    num_eval: int = 5_000,
    seed: int = 0,
) -> float:
    """Held-out accuracy of a logistic regression that predicts the factor k that the two rows of each pair share.

        k ~ factors;  (v_l, v'_l) for l = 1..L with v_lk = v'_lk;  feature = 1/L sum_l |z(v_l) - z(v'_l)|, shape (D,)

    From 0 to 1; at chance, and for a constant code, 1 / (number of factors). With a single factor the value is 1. Not
    invariant to scale, since the weights of the regression are penalised.

    Args:
        representation: codes of a grid.
        batch_size: L, pairs in one feature.
        num_train: features that the classifier is fitted to.
        num_eval: features that it is scored on.
        seed: of the draws.

    Raises ValueError for a setting below 1, and where all training features have the same k.

    Source: Higgins et al. 2017, "beta-VAE", algorithm 1; logistic regression and sample sizes from Locatello et al.
    2019, "Challenging Common Assumptions".

    Example:

        >>> import torch
        >>> from ppvae.data import Factors
        >>> from ppvae.evaluation.disentanglement import Representation, higgins
        >>> grid = Factors(("shape", "x"), (3, 4))
        >>> higgins(Representation(grid, grid.values(torch.arange(12)).float()), num_train=100, num_eval=50)
        1.0
    """
    require_at_least(1, batch_size=batch_size, num_train=num_train, num_eval=num_eval)
    if len(representation.sizes) == 1:
        return 1.0
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(seed)
    blocks = [_differences(representation, n, batch_size, rng) for n in _blocks(num_train + num_eval)]
    features, labels = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    if len(np.unique(labels[:num_train])) < 2:
        raise ValueError(f"expected training features of at least two factors, got {num_train} of one; raise num_train")
    classifier = LogisticRegression(max_iter=1000).fit(features[:num_train], labels[:num_train])
    return float(classifier.score(features[num_train:], labels[num_train:]))


def factor_vae_score(
    representation: Representation,
    *,
    batch_size: int = 64,
    num_train: int = 10_000,
    num_eval: int = 5_000,
    seed: int = 0,
) -> float:
    """Held-out accuracy of a majority vote that predicts the fixed factor k from the dimension of least variance.

        k ~ factors;  v_1..v_L with one v_lk;  vote (argmin_d Var_l z_d(v_l) / Var z_d, k)

    Each dimension predicts the factor of most of its training votes. From 0 to 1; 1 / (number of factors) at chance.
    Dimensions with a standard deviation below 0.05 over the whole grid do not vote; if none votes, the value is 0.
    Invariant to permutation, sign, and scale above that threshold.

    Args:
        representation: codes of a grid; Var z_d is the variance over the whole grid.
        batch_size: L, rows in one vote, at least 2.
        num_train: votes that are counted.
        num_eval: votes that are predicted.
        seed: of the draws.

    Raises ValueError for a smaller ``batch_size`` and for the other settings below 1.

    Source: Kim and Mnih 2018, "Disentangling by Factorising", section 4; threshold and sample sizes from Locatello et
    al. 2019.

    Example:

        >>> import torch
        >>> from ppvae.data import Factors
        >>> from ppvae.evaluation.disentanglement import Representation, factor_vae_score
        >>> grid = Factors(("shape", "x"), (3, 4))
        >>> factor_vae_score(Representation(grid, grid.values(torch.arange(12)).float()), num_train=100, num_eval=50)
        1.0
    """
    require_at_least(2, batch_size=batch_size)
    require_at_least(1, num_train=num_train, num_eval=num_eval)
    rng = np.random.default_rng(seed)
    variance = representation.codes.double().var(0).cpu().numpy()
    active = np.flatnonzero(np.sqrt(variance) >= MIN_STD)
    if len(active) == 0:
        return 0.0
    blocks = [_votes(representation, n, batch_size, rng, variance, active) for n in _blocks(num_train + num_eval)]
    dimension, factor = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    counts = np.zeros((len(variance), len(representation.sizes)), dtype=int)
    np.add.at(counts, (dimension[:num_train], factor[:num_train]), 1)
    return float((counts.argmax(1)[dimension[num_train:]] == factor[num_train:]).mean())


def _blocks(votes: int) -> list[int]:
    """Sizes of the blocks that the votes are computed in."""
    whole, rest = divmod(votes, BLOCK)
    return [BLOCK] * whole + [rest] * (rest > 0)


def _differences(
    representation: Representation, votes: int, batch_size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Features (votes, D) and the factor that the pairs of each share, (votes,)."""
    sizes = representation.sizes
    one, other = rng.integers(sizes, size=(2, votes, batch_size, len(sizes)))
    factor, row = rng.integers(len(sizes), size=votes), np.arange(votes)
    other[row, :, factor] = one[row, :, factor]
    return np.abs(representation.at(one) - representation.at(other)).mean(1), factor


def _votes(
    representation: Representation,
    votes: int,
    batch_size: int,
    rng: np.random.Generator,
    variance: np.ndarray,
    active: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The dimension of least relative variance and the factor that was held fixed, each (votes,)."""
    sizes = representation.sizes
    values = rng.integers(sizes, size=(votes, batch_size, len(sizes)))
    factor, row = rng.integers(len(sizes), size=votes), np.arange(votes)
    values[row, :, factor] = values[row, 0, factor][:, None]
    local = representation.at(values)[..., active].astype(np.float64).var(1, ddof=1)
    return active[(local / variance[active]).argmin(-1)], factor
