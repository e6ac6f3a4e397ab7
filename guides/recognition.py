"""A guide that recognises the codes of a generator in its samples.

q(c, k | x) = Categorical(c; softmax(logits(x))) N(k; means(x), scale^2 I),   [logits, means] = network(x)

Source: Chen et al. 2016, "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative
Adversarial Nets", section 5 and appendix C.
"""

import pyro
from pyro import distributions as dist
from torch import Tensor, nn

from ppvae.engine.contract import Guide
from ppvae.errors import ContractError, require_count, require_positive


class RecognitionGuide(Guide):
    """q(c | x) q(k | x) of the codes of an :class:`~ppvae.models.ImplicitModel`; sites "c" and "k". A label is ignored.

    The noise of the generator is not recognised. ``ppvae.predict(guide, x, site="c")`` gives the probabilities of the
    classes, ``ppvae.features(guide, x, site="k")`` the means of the continuous codes.

    Args:
        network: (B, *event_shape) -> (B, num_classes + num_codes): logits, then means.
        num_classes: values of the categorical code; 0 for none.
        num_codes: length of the continuous code; 0 for none.
        scale: standard deviation of k in q(k | x). It is fixed: x determines k, so that a learned one falls to 0 and
            the bound of the mutual information grows without limit. Codes that are recognised exactly have a bound of
            log 2 - log(scale sqrt(2 pi)) each, which is -.23 nats with scale 1: only its changes have a meaning then.

    Raises ValueError for a scale that is not above 0. Called with a network of other features, it raises ContractError.

    Example:

        >>> import torch
        >>> import ppvae
        >>> guide = RecognitionGuide(nn.Linear(5, 3 + 2), num_classes=3, num_codes=2)
        >>> x = torch.zeros(4, 5)
        >>> ppvae.predict(guide, x, site="c").shape, ppvae.features(guide, x, site="k").shape
        (torch.Size([4, 3]), torch.Size([4, 2]))
    """

    def __init__(self, network: nn.Module, num_classes: int = 0, num_codes: int = 0, scale: float = 1.0):
        super().__init__()
        self.num_classes = require_count("num_classes", num_classes, least=0)
        self.num_codes = require_count("num_codes", num_codes, least=0)
        if not num_classes and not num_codes:
            raise ValueError("expected a code to recognise, got none; give num_classes= or num_codes=")
        self.network, self.scale = network, require_positive("scale", scale)

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """Draw sites "c" and "k" for x of shape (B, *event_shape)."""
        logits, means = self._features(x)
        with pyro.plate("data", len(x)):
            if self.num_classes:
                pyro.sample("c", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
            if self.num_codes:
                pyro.sample("k", dist.Normal(means, self.scale).to_event(1))

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features, expected = self.network(x), self.num_classes + self.num_codes
        if features.shape[-1] != expected:
            raise ContractError(
                f"expected {expected} features of a RecognitionGuide with num_classes={self.num_classes} and "
                f"num_codes={self.num_codes}, got {features.shape[-1]}; change the network's output"
            )
        return features.split([self.num_classes, self.num_codes], -1)
