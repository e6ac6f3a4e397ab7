"""A guide that improves the q(z | x) of another guide for each datum: semi-amortized inference.

    lambda_0 = encoder(x);   lambda_t = lambda_{t-1} + step on ELBO(x; lambda);   q(z | x) = q(z; lambda_T)

where the bound of the datum rose, and q(z; lambda_0) elsewhere. The steps are those of
:func:`ppvae.objectives.local.improved`. The encoder gets the gradient of the bound at the refined features, as if the
steps were a constant shift.

Source: Krishnan, Liang and Hoffman 2018, "On the Challenges of Learning with Inference Networks on Sparse,
High-dimensional Data"; Kim et al. 2018, "Semi-Amortized Variational Autoencoders" (who differentiate the steps too).
"""

from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.engine.batch import Batch
from ppvae.engine.contract import AmortizedGuide
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.tracing import arguments
from ppvae.errors import require_count, require_positive
from ppvae.objectives.bounds.evidence import ELBO, StickingTheLanding
from ppvae.objectives.local import improved

SEED = 0  # of the noise of the steps: annealing and rescoring need the same q(z | x) at every call


class Refined(AmortizedGuide):
    """q(z | x) of another guide, after some steps of gradient ascent on the bound of each datum; site "z".

    The bound of a datum never falls below that of ``guide`` by more than the noise of a comparison by 64 draws. Every
    call on the same batch gives the same q(z | x), and the caller's random state stays as it was.

    Args:
        guide: the amortized guide to start from.
        model: the model of the bound; its parameters are not the guide's.
        steps: number of gradient steps in every call of the guide.
        learning_rate: of the first step, in units of a natural gradient step; it falls on a cosine.
        num_particles: draws of each step.
        path_only: leave out the score term of the gradient (:class:`StickingTheLanding`), where the guide can score
            values that it did not draw. False is much faster for an inverse autoregressive flow, which scores in
            latent_dim passes.

    Raises ValueError or TypeError for arguments out of range.

    Example:

        >>> import torch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guide = Refined(MeanFieldGaussian(nn.Linear(2, 4)), model, steps=3)
        >>> guide.encode(torch.zeros(5, 2)).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        guide: AmortizedGuide,
        model: nn.Module,
        steps: int = 20,
        learning_rate: float = 0.5,
        num_particles: int = 8,
        path_only: bool = True,
    ):
        steps, learning_rate = require_count("steps", steps, least=0), require_positive("learning_rate", learning_rate)
        super().__init__(guide.encoder)
        self.guide, self.steps, self.learning_rate = guide, steps, learning_rate
        self._model = [model]  # in a list, so that its parameters are not the guide's too
        self.can_score = guide.can_score
        self.objective = (StickingTheLanding if path_only and guide.can_score else ELBO)(num_particles)

    @property
    def partners(self) -> tuple[nn.Module, ...]:
        """The model, which is held by reference and not registered."""
        return tuple(self._model)

    def encode(self, x: Tensor, y: Tensor | None = None, **given: Tensor) -> Tensor:
        """The refined features of each datum, (B, features)."""
        batch = Batch(x, y, given, all_known=y is not None)
        call, named = arguments(self.guide, batch)
        features = self.guide.encode(*call, **named)
        ascent = (self.steps, self.learning_rate, self.objective)
        with forked_randomness(x.device, SEED):
            better = improved(self._model[0], self.guide.distribution, batch, features, *ascent)
        return features + (better - features).detach()

    def distribution(self, features: Tensor) -> dist.TorchDistribution:
        """q(z; features) of the refined guide."""
        return self.guide.distribution(features)
