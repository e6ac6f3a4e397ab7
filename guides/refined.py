"""A guide that improves the q(z | x) of another guide for each datum: semi-amortized inference.

    lambda_0 = encoder(x);   lambda_t = lambda_{t-1} + Adam step on ELBO(x; lambda);   q(z | x) = q(z; lambda_T)

The encoder gets the gradient of the bound at the refined features, as if the steps were a constant shift.

Source: Krishnan, Liang and Hoffman 2018, "On the Challenges of Learning with Inference Networks on Sparse,
High-dimensional Data"; Kim et al. 2018, "Semi-Amortized Variational Autoencoders" (who differentiate the steps too).
"""

from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.engine.batch import Batch
from ppvae.engine.contract import AmortizedGuide
from ppvae.engine.isolation import forked_randomness
from ppvae.engine.tracing import arguments
from ppvae.objectives.local import improved

SEED = 0  # of the noise of the steps: annealing and rescoring need the same q(z | x) at every call


class Refined(AmortizedGuide):
    """q(z | x) of another guide, after some steps of gradient ascent on the bound of each datum; site "z".

    Args:
        guide: the amortized guide to start from.
        model: the model of the bound; its parameters are not the guide's.
        steps: number of Adam steps in every call of the guide.
        learning_rate: of those steps.

    Raises ValueError for arguments out of range.

    Example:

        >>> import torch
        >>> from ppvae.guides import MeanFieldGaussian
        >>> from ppvae.models import LinearGaussian
        >>> model = LinearGaussian(torch.eye(2), torch.zeros(2))
        >>> guide = Refined(MeanFieldGaussian(nn.Linear(2, 4)), model, steps=3)
        >>> guide.encode(torch.zeros(5, 2)).shape
        torch.Size([5, 4])
    """

    def __init__(self, guide: AmortizedGuide, model: nn.Module, steps: int = 20, learning_rate: float = 0.01):
        if steps < 0 or not learning_rate > 0:
            raise ValueError(f"expected steps >= 0 and learning_rate above 0, got {steps} and {learning_rate}")
        super().__init__(guide.encoder)
        self.guide, self.steps, self.learning_rate = guide, steps, learning_rate
        self._model = [model]  # in a list, so that its parameters are not the guide's too
        self.can_score = guide.can_score

    @property
    def partners(self) -> tuple[nn.Module, ...]:
        """The model, which is held by reference and not registered."""
        return tuple(self._model)

    def encode(self, x: Tensor, y: Tensor | None = None, **given: Tensor) -> Tensor:
        """The refined features of each datum, (B, features)."""
        batch = Batch(x, y, given, all_known=y is not None)
        call, named = arguments(self.guide, batch)
        features = self.guide.encode(*call, **named)
        with forked_randomness(x.device, SEED):
            better = improved(self._model[0], self.guide.distribution, batch, features, self.steps, self.learning_rate)
        return features + (better - features).detach()

    def distribution(self, features: Tensor) -> dist.TorchDistribution:
        """q(z; features) of the refined guide."""
        return self.guide.distribution(features)
