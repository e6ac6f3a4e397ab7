"""Probabilistic PCA of data with missing elements, by EM. Used by missing_data.py.

    z ~ N(0, I)        x ~ N(W z + b, s^2 I),     elements that are missing at random are left out of the likelihood

The E step is the exact posterior given the observed elements, N(m_n, V_n); the M step has a closed form. With
u_n = (m_n, 1), S_n = E[(z, 1)(z, 1)'] and o_nd = 1 where x_nd is observed:

    (W_d, b_d) = (sum_n o_nd x_nd u_n) (sum_n o_nd S_n)^-1
    s^2 = sum_nd o_nd [(x_nd - W_d m_n - b_d)^2 + W_d V_n W_d'] / sum_nd o_nd

Source: Tipping and Bishop 1999, "Probabilistic Principal Component Analysis", section 3.3 and appendix B; Ilin and
Raiko 2010, "Practical Approaches to Principal Component Analysis in the Presence of Missing Values", section 4.
"""

import torch
from torch import Tensor

from ppvae.models import LinearGaussian

TOLERANCE = 1e-5  # nats per datum and iteration, below which EM has converged


@torch.no_grad()
def fit(x: Tensor, latent_dim: int, iterations: int = 500, seed: int = 0) -> LinearGaussian:
    """The maximum of log p(x_observed) that EM finds from a random start; each feature of x has an observed element."""
    generator = torch.Generator().manual_seed(seed)
    mean, spread = x.nanmean(0), (x - x.nanmean(0)).square().nanmean()
    weight = 0.1 * torch.randn(x.shape[1], latent_dim, generator=generator, dtype=x.dtype)
    model = LinearGaussian(weight, mean, spread.sqrt().item(), missing=True)
    evidence = -torch.inf
    for _ in range(iterations):
        previous, evidence = evidence, model.log_evidence(x).mean().item()
        if evidence - previous < TOLERANCE:
            break
        model = maximised(model, x)
    return model


@torch.no_grad()
def maximised(model: LinearGaussian, x: Tensor) -> LinearGaussian:
    """The model after one iteration of EM on data x (N, D), where NaN marks a missing element."""
    observed, filled = (~x.isnan()).to(x.dtype), x.nan_to_num()
    posterior, ones = model.posterior(x), x.new_ones(len(x), 1)
    mean, covariance = posterior.mean, posterior.covariance_matrix
    augmented = torch.cat([mean, ones], 1)
    second = augmented.unsqueeze(2) * augmented.unsqueeze(1)
    second[:, :-1, :-1] += covariance
    moments = torch.einsum("nd,nij->dij", observed, second)
    coefficients = torch.linalg.solve(moments, (observed * filled).T @ augmented)  # (D, latent_dim + 1)
    weight, bias = coefficients[:, :-1], coefficients[:, -1]
    residual = (filled - augmented @ coefficients.T).square() + torch.einsum(
        "di,nij,dj->nd", weight, covariance, weight
    )
    variance = (observed * residual).sum() / observed.sum()
    return LinearGaussian(weight, bias, variance.sqrt().item(), missing=True)


@torch.no_grad()
def imputed(model: LinearGaussian, x: Tensor) -> Tensor:
    """x with each missing element at its mean given the observed ones, W E[z | x_observed] + b: exact."""
    return torch.where(x.isnan(), model.posterior(x).mean @ model.weight.T + model.bias, x)
