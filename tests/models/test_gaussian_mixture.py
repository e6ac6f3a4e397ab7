"""The mixture oracle against sums over its components."""

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from ppvae.models import GaussianMixture


def oracle() -> tuple[GaussianMixture, MixtureSameFamily]:
    torch.manual_seed(0)
    model = GaussianMixture(2 * torch.randn(4, 3), 0.8).double()
    with torch.no_grad():
        model.logits.normal_()
        model.log_scales.normal_()
    components = Independent(Normal(model.locs, model.log_scales.exp().unsqueeze(-1).expand(4, 3)), 1)
    return model, MixtureSameFamily(Categorical(logits=model.logits), components)


def test_log_evidence_equals_torch_mixture():
    model, stock = oracle()
    x = torch.randn(6, 3).double()
    torch.testing.assert_close(model.log_evidence(x), stock.log_prob(x))


def test_posterior_follows_from_bayes_rule():
    model, stock = oracle()
    x = torch.randn(6, 3).double()
    joint = model.logits.log_softmax(-1) + stock.component_distribution.log_prob(x.unsqueeze(1))
    torch.testing.assert_close(model.posterior(x).probs, (joint - stock.log_prob(x).unsqueeze(1)).exp())


@pytest.mark.parametrize(("locs", "scale"), [(torch.zeros(3), 1.0), (torch.zeros(3, 2), 0.0)])
def test_arguments_out_of_range_are_refused(locs, scale):
    with pytest.raises(ValueError, match=r"locs \(components, data_dim\) and scale above 0"):
        GaussianMixture(locs, scale)
