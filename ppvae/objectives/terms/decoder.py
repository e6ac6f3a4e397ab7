"""Penalties on the decoder of an autoencoder: the size of its weights, and how fast its output changes with z."""

import torch
from torch import Tensor, nn

from ppvae.engine.particles import Particles, add_up
from ppvae.engine.tracing import OBSERVED
from ppvae.errors import ContractError
from ppvae.objectives.base import Penalty
from ppvae.objectives.draws import mean_by_formula, vector
from ppvae.objectives.jacobians import require_probes, squared_jacobian
from ppvae.objectives.schedules import Schedule, require_weight, value_at


class DecoderWeights(Penalty):
    """weight |theta|^2, the sum of the squares of the decoder's parameters, a scalar that counts for each datum.

    The parameters are those of ``model.decoder``, or of the whole model if it has no attribute of that name.

    Part: "decoder_weights".

    A decoder whose output does not depend on the length of its weights, such as ``ppvae.nn.Dictionary``, escapes it.

    Args:
        weight: at least 0, or a schedule.
        site: not read, since the parameters belong to all latents; :func:`rae` gives every penalty the site.

    Raises ContractError for a model without parameters.

    Source: Ghosh et al. 2020, "From Variational to Deterministic Autoencoders", section 3 (RAE-L2).

    Example:

        >>> import ppvae
        >>> objective = ppvae.Reconstruction() + ppvae.CodeNorm(0.01) + ppvae.DecoderWeights(1e-5)
    """

    label = "decoder_weights"
    reparameterised = over_batch = False

    def __init__(self, weight: float | Schedule, site: str | None = None):
        require_weight("weight", weight)
        self.weight = weight

    def penalty(self, particles: Particles) -> Tensor:
        """The weighted sum of squares, a scalar."""
        decoder = getattr(particles.source.model, "decoder", particles.source.model)
        parameters = list(decoder.parameters()) if isinstance(decoder, nn.Module) else []
        if not parameters:
            raise ContractError(
                f"expected a PyroModule with parameters as the model, or as its attribute decoder, got a "
                f"{type(decoder).__name__}; use DecoderGradient, or derive the model from ppvae.Model"
            )
        return value_at(self.weight, particles.step) * add_up(p.square().sum() for p in parameters)


class DecoderGradient(Penalty):
    """weight E_q |J|^2, where J = d E[x | z] / d z is the Jacobian matrix of the decoder at the guide's z.

    Part: "decoder_gradient/z".

    Args:
        weight: at least 0, or a schedule.
        num_probes: random vectors u in the unbiased estimate |J|^2 = E |J' u|^2, each one backward pass. None computes
            it exactly, with one backward pass for each element of x.
        site: the latent.

    Raises ContractError for a pair with enumerated latents, and for a likelihood without a formula for its mean.

    Source: Ghosh et al. 2020, "From Variational to Deterministic Autoencoders", section 3 (RAE-GP).

    Example:

        >>> import ppvae
        >>> objective = ppvae.Reconstruction() + ppvae.CodeNorm(0.01) + ppvae.DecoderGradient(1e-3)
    """

    label = "decoder_gradient"
    site: str
    over_batch = False

    def __init__(self, weight: float | Schedule, num_probes: int | None = 1, site: str = "z"):
        require_weight("weight", weight)
        self.weight, self.num_probes, self.site = weight, require_probes(num_probes), site

    def penalty(self, particles: Particles) -> Tensor:
        """The weighted squared size of the Jacobian at each datum's code, (B,)."""
        vector(particles, self.site)
        if any(site.enumerated for site in particles.guide.values()):
            raise ContractError(
                f"expected a pair with continuous latents alone, got {list(particles.guide)}; give labels y, or use "
                "DecoderWeights"
            )
        with torch.enable_grad():
            z = particles.draws[self.site]
            at = z if z.requires_grad else z.detach().requires_grad_()
            sites = particles.model
            if at is not z:
                sites = particles.source.replay_model({**particles.draws, self.site: at}, particles.guide)
            mean = mean_by_formula(sites[OBSERVED].distribution, "p(x | z)", "use DecoderWeights")
            square = squared_jacobian(mean, at, 2, self.num_probes)
        return value_at(self.weight, particles.step) * particles.average(square)
