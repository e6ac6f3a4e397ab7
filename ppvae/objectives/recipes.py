"""Objectives by their names in the literature: an objective and its terms."""

from collections.abc import Callable, Sequence

from torch import nn

from ppvae.engine.player import Optimizer
from ppvae.objectives.base import Objective, Regularised, Regulariser
from ppvae.objectives.bounds.evidence import ELBO, Reconstruction
from ppvae.objectives.critics import critic_adam
from ppvae.objectives.kernels import InverseMultiquadratic
from ppvae.objectives.schedules import Ramp, Schedule
from ppvae.objectives.terms.codes import CodeNorm
from ppvae.objectives.terms.constraint import ConstrainedReconstruction
from ppvae.objectives.terms.decoder import DecoderWeights
from ppvae.objectives.terms.kl import Capacity, KLWeight
from ppvae.objectives.terms.moments import DIPPenalty
from ppvae.objectives.terms.prior_matching import AdversarialDivergence, MaximumMeanDiscrepancy
from ppvae.objectives.terms.total_correlation import TCDecomposition, TotalCorrelation


def beta_vae(beta: float | Schedule = 4.0, site: str | None = None) -> Objective:
    """D + beta KL, of ``site`` or, where it is None, of all latents. Arguments and errors as of :class:`KLWeight`.

    Source: Higgins et al. 2017, "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework".

    Example:

        >>> beta_vae(4.0).num_particles
        1
    """
    return ELBO() + KLWeight(beta, site)


def annealed_vae(
    capacity: float = 25.0,
    steps: int = 100_000,
    gamma: float = 1000.0,
    start: float = 0.0,
    site: str | None = None,
) -> Objective:
    """D + gamma |KL - C|, C from ``start`` to ``capacity`` nats in ``steps`` training steps.

    ``site`` and errors as of :class:`Capacity`.

    Source: Burgess et al. 2018, "Understanding disentangling in beta-VAE".

    Example:

        >>> annealed_vae(25.0, steps=10_000).regularisers[0].capacity(5_000)
        12.5
    """
    return ELBO() + Capacity(Ramp(start, capacity, steps), gamma, site)


def geco(tolerance: float, speed: float = 0.01, limit: float = 100.0) -> Objective:
    """KL + lambda (D - tolerance), with a Lagrange multiplier lambda that is trained with the pair.

    ``tolerance`` in nats a datum; lambda moves by ``speed`` between 1 / ``limit`` and ``limit``. Errors as of
    :class:`ConstrainedReconstruction`. :func:`ppvae.fit` trains it; a stock loop cannot.

    Source: Rezende and Viola 2018, "Taming VAEs".

    Example:

        >>> [player.name for player in geco(60.0).players]
        ['constraint/distortion']
    """
    return ELBO() + ConstrainedReconstruction(tolerance, speed, limit=limit)


def factor_vae(
    gamma: float | Schedule = 35.0,
    latent_dim: int = 10,
    site: str | Sequence[str] = "z",
    critic: nn.Module | None = None,
    optimizer: Optimizer = critic_adam,
) -> Objective:
    """ELBO and gamma TC, by a critic; :func:`ppvae.fit` trains it, a stock loop cannot.

    Arguments and errors as of :class:`TotalCorrelation`.

    Source: Kim and Mnih 2018, "Disentangling by Factorising".

    Example:

        >>> from torch import nn
        >>> [player.name for player in factor_vae(35.0, critic=nn.Linear(10, 1)).players]
        ['critic/z']
    """
    return ELBO() + TotalCorrelation(gamma, latent_dim, site, critic, optimizer)


def beta_tcvae(
    num_data: int,
    alpha: float | Schedule = 1.0,
    beta: float | Schedule = 6.0,
    gamma: float | Schedule = 1.0,
    site: str = "z",
    stratified_sampling: bool = True,
) -> Objective:
    """D + alpha MI + beta TC + gamma dimension-wise KL, from the batch; ``num_data`` is the size of the training set.

    Arguments and errors as of :class:`TCDecomposition`.

    Source: Chen et al. 2018, "Isolating Sources of Disentanglement in Variational Autoencoders"; its experiments use
    the weighted estimate, ``stratified_sampling=False``.

    Example:

        >>> beta_tcvae(num_data=60_000).regularisers[0].beta
        6.0
    """
    return ELBO() + TCDecomposition(num_data, alpha, beta, gamma, site, stratified_sampling)


def dip_vae_i(off_diagonal: float = 10.0, diagonal: float | None = None, site: str = "z") -> Objective:
    """ELBO and a penalty on Cov E_q[z | x]; ``diagonal`` is 10 ``off_diagonal`` if None.

    Arguments and errors as of :class:`DIPPenalty`.

    Source: Kumar, Sattigeri and Balakrishnan 2018, "Variational Inference of Disentangled Latent Concepts from
    Unlabeled Observations", equation 6.

    Example:

        >>> dip_vae_i(10.0).regularisers[0].diagonal
        100.0
    """
    diagonal = 10 * off_diagonal if diagonal is None else diagonal
    return ELBO() + DIPPenalty(off_diagonal, diagonal, of_draws=False, site=site)


def dip_vae_ii(off_diagonal: float = 10.0, diagonal: float | None = None, site: str = "z") -> Objective:
    """ELBO and a penalty on Cov z; ``diagonal`` is ``off_diagonal`` if None.

    Arguments and errors as of :class:`DIPPenalty`.

    Source: Kumar et al. 2018, equation 7.

    Example:

        >>> dip_vae_ii(10.0).regularisers[0].of_draws
        True
    """
    diagonal = off_diagonal if diagonal is None else diagonal
    return ELBO() + DIPPenalty(off_diagonal, diagonal, of_draws=True, site=site)


def info_vae(
    alpha: float = 1.0,
    lambda_: float = 1000.0,
    divergence: Callable[..., Regulariser] = MaximumMeanDiscrepancy,
    site: str = "z",
) -> Objective:
    """D + (1 - alpha) KL(q(z | x) || p(z)) + (alpha + lambda - 1) Div(q(z), p(z)).

    With alpha = 1, the default, there is no KL, and the mutual information of x and z is not penalised. With alpha = 0
    the KL is the ELBO's, which a decoder that models x without the code drives to 0.

    Args:
        alpha: weight of the mutual information that is left out of the rate, at most 1.
        lambda_: such that alpha + lambda is at least 1.
        divergence: called ``divergence(weight, site=site)``: ``MaximumMeanDiscrepancy``, ``SteinDiscrepancy``,
            ``functools.partial(AdversarialDivergence, latent_dim=10)``.
        site: the latent.

    Source: Zhao, Song and Ermon 2019, "InfoVAE: Balancing Learning and Inference in Variational Autoencoders",
    equation 6.

    Example:

        >>> info_vae(alpha=0.5, lambda_=10.0).regularisers[1].weight
        9.5
    """
    if not alpha <= 1 or not alpha + lambda_ >= 1:
        raise ValueError(f"expected alpha of at most 1 and alpha + lambda_ of at least 1, got {alpha} and {lambda_}")
    matching = divergence(alpha + lambda_ - 1, site=site)
    if alpha == 1:
        return Reconstruction() + matching
    weight = [] if alpha == 0 else [KLWeight(1 - alpha, site)]
    return Regularised(ELBO(), [*weight, matching])


def wae(lambda_: float = 10.0, scales: Sequence[float] = (0.1, 0.2, 0.5, 1, 2, 5, 10), site: str = "z") -> Objective:
    """D + lambda MMD^2(q(z), p(z)) with inverse multiquadratic kernels, lambda in nats a unit of MMD^2.

    It reads no density of q, so that the guide may be a point mass. Arguments and errors as of
    :class:`MaximumMeanDiscrepancy`.

    Source: Tolstikhin et al. 2018, "Wasserstein Auto-Encoders", where D is a squared error; here - log p(x | z), which
    for a Gaussian is that and a constant.

    Example:

        >>> wae(10.0).regularisers[0].weight
        10.0
    """
    return Reconstruction() + MaximumMeanDiscrepancy(lambda_, InverseMultiquadratic(scales), site)


def adversarial_autoencoder(
    weight: float = 1.0,
    latent_dim: int = 10,
    site: str = "z",
    critic: nn.Module | None = None,
    optimizer: Optimizer = critic_adam,
) -> Objective:
    """D and the adversarial loss of q(z) against p(z); :func:`ppvae.fit` trains it, a stock loop cannot.

    It reads no density of q, so that the guide may be a point mass. Arguments as of :class:`AdversarialDivergence`.

    Source: Makhzani et al. 2016, "Adversarial Autoencoders".

    Example:

        >>> from torch import nn
        >>> [player.name for player in adversarial_autoencoder(critic=nn.Linear(10, 1)).players]
        ['critic/z']
    """
    term = AdversarialDivergence(weight, latent_dim, site, non_saturating=True, critic=critic, optimizer=optimizer)
    return Reconstruction() + term


def rae(
    code: float | Schedule = 0.01,
    decoder: float | Schedule = 1e-5,
    penalty: Callable[..., Regulariser] = DecoderWeights,
    site: str = "z",
) -> Objective:
    """D + code |z|^2 / 2 + decoder R, the regularised autoencoder, with R = |theta|^2 of the decoder's parameters.

    The guide may be a point mass. Such a pair is sampled with a prior that is fitted to the codes after training, such
    as ``ppvae.models.FullMixture``.

    Args:
        code: weight of the code's squared norm, in nats.
        decoder: weight of R.
        penalty: called ``penalty(decoder, site=site)``: ``DecoderWeights``, or ``DecoderGradient`` for the squared
            Jacobian.
        site: the latent.

    Errors as of :class:`CodeNorm` and of the penalty.

    Source: Ghosh et al. 2020, "From Variational to Deterministic Autoencoders", section 3, where D is a squared
    error; here - log p(x | z), which for a Gaussian is that and a constant.

    Example:

        >>> [type(term).__name__ for term in rae().regularisers]
        ['CodeNorm', 'DecoderWeights']
    """
    return Reconstruction() + CodeNorm(code, site=site) + penalty(decoder, site=site)
