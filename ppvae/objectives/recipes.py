"""Objectives by their names in the literature: a bound and the regularisers that make it so."""

from collections.abc import Callable, Sequence

from ppvae.objectives.base import Objective, Regularised, Regulariser
from ppvae.objectives.bounds.evidence import ELBO
from ppvae.objectives.kernels import InverseMultiquadratic
from ppvae.objectives.schedules import Ramp, Schedule
from ppvae.objectives.terms.kl import Capacity, ConstrainedReconstruction, KLWeight, Reconstruction
from ppvae.objectives.terms.moments import DIPPenalty
from ppvae.objectives.terms.prior_matching import AdversarialDivergence, MaximumMeanDiscrepancy
from ppvae.objectives.terms.total_correlation import TCDecomposition, TotalCorrelation


def beta_vae(beta: float | Schedule = 4.0, site: str | None = None) -> Objective:
    """D + beta KL, of ``site`` or, where it is None, of all latents. Arguments and errors as of :class:`KLWeight`.

    Higgins et al. 2017, "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework"."""
    return ELBO() + KLWeight(beta, site)


def annealed_vae(
    capacity: float = 25.0,
    steps: int = 100_000,
    gamma: float = 1000.0,
    start: float = 0.0,
    site: str | None = None,
) -> Objective:
    """D + gamma |KL - C|, C from ``start`` to ``capacity`` nats in ``steps`` training steps; ``site`` and errors as of
    :class:`Capacity`.

    Burgess et al. 2018, "Understanding disentangling in beta-VAE"."""
    return ELBO() + Capacity(Ramp(start, capacity, steps), gamma, site)


def geco(tolerance: float, speed: float = 0.01, limit: float = 100.0) -> Objective:
    """KL + lambda (D - tolerance), ``tolerance`` in nats a datum, lambda a Lagrange multiplier that moves by ``speed``
    between 1 / ``limit`` and ``limit``; errors as of :class:`ConstrainedReconstruction`.

    Rezende and Viola 2018, "Taming VAEs"."""
    return ELBO() + ConstrainedReconstruction(tolerance, speed, limit=limit)


def factor_vae(gamma: float | Schedule = 35.0, latent_dim: int = 10, site: str = "z", **critic) -> Objective:
    """ELBO and gamma TC, by a critic, which only :func:`ppvae.fit` trains. Kim and Mnih 2018, "Disentangling by
    Factorising".

    Arguments (``critic`` and ``optimizer`` too) and errors as of :class:`TotalCorrelation`."""
    return ELBO() + TotalCorrelation(gamma, latent_dim, site, **critic)


def beta_tcvae(
    num_data: int,
    alpha: float | Schedule = 1.0,
    beta: float | Schedule = 6.0,
    gamma: float | Schedule = 1.0,
    site: str = "z",
    **sampling,
) -> Objective:
    """D + alpha MI + beta TC + gamma dimension-wise KL, from the batch, ``num_data`` the rows of the training set.

    Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders"; its experiments are by the
    weighted estimate, ``stratified_sampling=False``. Arguments and errors as of :class:`TCDecomposition`."""
    return ELBO() + TCDecomposition(num_data, alpha, beta, gamma, site, **sampling)


def dip_vae_i(off_diagonal: float = 10.0, diagonal: float | None = None, site: str = "z") -> Objective:
    """ELBO and a penalty on Cov E_q[z | x]; ``diagonal`` is 10 ``off_diagonal`` if None.

    Arguments and errors as of :class:`DIPPenalty`. Kumar, Sattigeri and Balakrishnan 2018, "Variational
    Inference of Disentangled Latent Concepts from Unlabeled Observations", equation 6."""
    diagonal = 10 * off_diagonal if diagonal is None else diagonal
    return ELBO() + DIPPenalty(off_diagonal, diagonal, of_draws=False, site=site)


def dip_vae_ii(off_diagonal: float = 10.0, diagonal: float | None = None, site: str = "z") -> Objective:
    """ELBO and a penalty on Cov z; ``diagonal`` is ``off_diagonal`` if None.

    Arguments and errors as of :class:`DIPPenalty`. Kumar et al. 2018, equation 7."""
    diagonal = off_diagonal if diagonal is None else diagonal
    return ELBO() + DIPPenalty(off_diagonal, diagonal, of_draws=True, site=site)


def info_vae(
    alpha: float = 0.0,
    lambda_: float = 1000.0,
    divergence: Callable[..., Regulariser] = MaximumMeanDiscrepancy,
    site: str = "z",
) -> Objective:
    """D + (1 - alpha) KL(q(z | x) || p(z)) + (alpha + lambda - 1) Div(q(z), p(z)).

    Args:
        alpha: weight of the mutual information that is not paid for, at most 1.
        lambda_: such that alpha + lambda is at least 1.
        divergence: called ``divergence(weight, site=site)``: ``MaximumMeanDiscrepancy``, ``SteinDiscrepancy``,
            ``functools.partial(AdversarialDivergence, latent_dim=10)``.
        site: the latent.

    Source: Zhao, Song and Ermon 2019, "InfoVAE: Balancing Learning and Inference in Variational Autoencoders",
    equation 6.
    """
    if not alpha <= 1 or not alpha + lambda_ >= 1:
        raise ValueError(f"expected alpha of at most 1 and alpha + lambda_ of at least 1, got {alpha} and {lambda_}")
    rate = [] if alpha == 0 else [KLWeight(1 - alpha, site)]
    return Regularised(ELBO(), [*rate, divergence(alpha + lambda_ - 1, site=site)])


def wae(lambda_: float = 10.0, scales: Sequence[float] = (0.1, 0.2, 0.5, 1, 2, 5, 10), site: str = "z") -> Objective:
    """D + lambda MMD^2(q(z), p(z)) with inverse multiquadratic kernels, lambda in nats a unit of MMD^2.

    Arguments and errors as of :class:`MaximumMeanDiscrepancy`. Tolstikhin et al. 2018, "Wasserstein Auto-Encoders",
    where D is a squared error; here - log p(x | z), of which a Gaussian's is that and a constant."""
    return Reconstruction() + MaximumMeanDiscrepancy(lambda_, InverseMultiquadratic(scales), site)


def adversarial_autoencoder(weight: float = 1.0, latent_dim: int = 10, site: str = "z", **critic) -> Objective:
    """D and the adversarial loss of q(z) beside p(z). Makhzani et al. 2016, "Adversarial Autoencoders".

    ``critic`` and ``optimizer`` are those of :class:`AdversarialDivergence`."""
    return Reconstruction() + AdversarialDivergence(weight, latent_dim, site, non_saturating=True, **critic)
