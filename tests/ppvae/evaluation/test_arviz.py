"""Handing a pair over to ArviZ, block by block."""

import numpy as np
import torch

from ppvae.evaluation import inference_data
from tests.catalogue import PAIRS
from tests.ppvae.oracles import Exact, linear_gaussian


def test_inference_data_evaluates_no_more_at_once_than_chunk():
    model, guide, x = PAIRS["gaussian_vae"].make()
    seen = []
    model.decoder.register_forward_hook(lambda module, args, output: seen.append(output[..., 0, 0].numel()))
    data = inference_data(model, guide, x, draws=10, candidates=5, chunk=100)
    assert max(seen[-6:]) == 100  # two data at a time
    assert data["posterior"]["z"].shape == data["prior"]["z"].shape == (1, 10, 6, 3)
    assert data["log_likelihood"]["x"].shape == (1, 10, 6)
    seen.clear()
    inference_data(model, guide, x, draws=10, candidates=5, chunk=1)
    assert max(seen[-12:]) == 50  # at least one datum


def test_inference_data_has_the_rows_of_each_block_in_place():
    model, _ = linear_gaussian()
    x = torch.randn(7, 5).double()
    posterior = model.posterior(x)
    for chunk in (3000, 10**9):
        data = inference_data(model, Exact(model), x, draws=1000, candidates=1, chunk=chunk)
        mean = torch.from_numpy(np.array(data["posterior"]["z"].values))[0].mean(0)
        # Resampled from as many draws: twice the variance of a mean of 1,000.
        assert ((mean - posterior.mean).abs() < 4.5 * posterior.stddev * (2 / 1000) ** 0.5).all()
        likelihood = data["log_likelihood"]["x"].values[0]
        z = torch.from_numpy(np.array(data["posterior"]["z"].values))[0]
        exact = torch.distributions.Normal(z @ model.weight.T + model.bias, model.log_scale.exp()).log_prob(x).sum(-1)
        np.testing.assert_allclose(likelihood, exact.detach().numpy())
