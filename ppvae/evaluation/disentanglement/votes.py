"""Metrics that hold one factor fixed and ask which it was: Higgins' classifier and FactorVAE's majority vote."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from ppvae.evaluation.disentanglement.representation import Representation, at_least

PRUNED = 0.05
AT_ONCE = 1000  # votes whose rows are held at once


def higgins(
    representation: Representation,
    *,
    batch_size: int = 64,
    num_train: int = 10_000,
    num_eval: int = 5_000,
    seed: int = 0,
) -> float:
    """Held-out accuracy of a linear classifier (logistic regression) that tells the factor that pairs share.

        k ~ factors;  (v_l, v'_l) for l = 1..L with v_lk = v'_lk;  feature = 1/L sum_l |z(v_l) - z(v'_l)|, shape (D,)

    From 0 to 1; chance is one over the number of factors, which a constant code gets. With a single factor there is
    nothing to tell, and the value is 1. Not invariant to scale: the classifier's weights are regularised.

    Args:
        representation: codes of a grid.
        batch_size: pairs a feature, L.
        num_train, num_eval: features.
        seed: of the draws.

    Raises ValueError where a setting is below 1, and where the training features are all of one factor.

    Source: Higgins et al. 2017, "beta-VAE", algorithm 1; logistic regression and sample sizes as in Locatello et al.
    2019, "Challenging Common Assumptions".
    """
    at_least(1, batch_size=batch_size, num_train=num_train, num_eval=num_eval)
    if len(representation.sizes) == 1:
        return 1.0
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
    """Held-out accuracy of a majority vote: which dimension varies least where factor k is held fixed?

        k ~ factors;  v_1..v_L with one v_lk;  vote (argmin_d Var_l z_d(v_l) / Var z_d, k)

    Each dimension stands for the factor of most of its training votes. From 0 to 1; chance is one over the number of
    factors. Dimensions whose standard deviation over the whole grid is below 0.05 do not vote; where all are, the
    value is 0. Invariant to permutation, sign, and scale above that threshold.

    Args:
        representation: codes of a grid; the variances below the line are those of the whole grid.
        batch_size: rows a vote, L, at least 2, for a variance.
        num_train, num_eval: votes.
        seed: of the draws.

    Raises ValueError where a setting is below its least.

    Source: Kim and Mnih 2018, "Disentangling by Factorising", section 4; threshold and sample sizes as in Locatello
    et al. 2019.
    """
    at_least(2, batch_size=batch_size)
    at_least(1, num_train=num_train, num_eval=num_eval)
    rng = np.random.default_rng(seed)
    variance = representation.codes.double().var(0).cpu().numpy()
    active = np.flatnonzero(np.sqrt(variance) >= PRUNED)
    if len(active) == 0:
        return 0.0
    blocks = [_votes(representation, n, batch_size, rng, variance, active) for n in _blocks(num_train + num_eval)]
    dimension, factor = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    counts = np.zeros((len(variance), len(representation.sizes)), dtype=int)
    np.add.at(counts, (dimension[:num_train], factor[:num_train]), 1)
    return float((counts.argmax(1)[dimension[num_train:]] == factor[num_train:]).mean())


def _blocks(votes: int) -> list[int]:
    whole, rest = divmod(votes, AT_ONCE)
    return [AT_ONCE] * whole + [rest] * (rest > 0)


def _differences(r: Representation, votes: int, batch_size: int, rng: np.random.Generator):
    """Features (votes, D) and the factor that each pair shared."""
    one, other = rng.integers(r.sizes, size=(2, votes, batch_size, len(r.sizes)))
    factor = rng.integers(len(r.sizes), size=votes)
    row = np.arange(votes)
    other[row, :, factor] = one[row, :, factor]
    return np.abs(r.at(one) - r.at(other)).mean(1), factor


def _votes(r: Representation, votes: int, batch_size: int, rng: np.random.Generator, variance, active):
    """The dimension that varies least, and the factor that was held fixed."""
    values = rng.integers(r.sizes, size=(votes, batch_size, len(r.sizes)))
    factor = rng.integers(len(r.sizes), size=votes)
    row = np.arange(votes)
    values[row, :, factor] = values[row, 0, factor][:, None]
    local = r.at(values)[..., active].astype(np.float64).var(1, ddof=1)
    return active[(local / variance[active]).argmin(-1)], factor
