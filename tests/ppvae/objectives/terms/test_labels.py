"""The classifier's agreement with itself."""

import pytest
import torch

import ppvae
from tests.catalogue import LABELS, PAIRS


def added(threshold, y=None, noise=False):
    """What Consistency adds to each row's loss, and q(y | x)."""
    model, guide, x = PAIRS["label"].make()
    guide.train(noise)
    particles = ppvae.draw(model, guide, x, y)
    return ppvae.Consistency(weight=2.0, threshold=threshold).penalty(particles), ppvae.predict(guide, x)


def test_without_noise_it_is_the_entropy():
    extra, q = added(threshold=0.0)
    torch.testing.assert_close(extra, -2 * (q * q.log()).sum(-1))


def test_rows_that_are_not_sure_are_left_out():
    _, q = added(threshold=0.0)
    threshold = q.amax(-1).median().item()
    extra, _ = added(threshold)
    sure = q.amax(-1) > threshold
    assert 0 < sure.sum() < len(sure)
    assert ((extra > 0) == sure).all()


def test_labelled_rows_are_left_out():
    extra, _ = added(threshold=0.0, y=LABELS)
    assert ((extra > 0) == (LABELS < 0)).all()
    extra, _ = added(threshold=0.0, y=LABELS.clamp(min=0))
    assert extra == 0


def test_the_target_has_no_noise_and_no_gradient():
    model, guide, x = PAIRS["label"].make()
    guide.train()
    torch.manual_seed(0)
    particles = ppvae.draw(model, guide, x)
    loss = ppvae.Consistency(weight=1.0, threshold=0.0).penalty(particles).sum()
    loss.backward()
    target = ppvae.predict(guide, x)
    log_q = particles.guide["y"].log_prob.squeeze(1).T
    torch.testing.assert_close(loss, -(target * log_q).sum())
    assert guide.training


@pytest.mark.parametrize(("weight", "threshold"), [(-1.0, 0.5), (1.0, 1.0), (1.0, -0.1)])
def test_arguments_out_of_range(weight, threshold):
    with pytest.raises(ValueError, match="expected weight of at least 0"):
        ppvae.Consistency(weight, threshold)
