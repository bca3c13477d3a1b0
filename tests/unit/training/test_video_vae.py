"""The autoencoder that pixels are compared with."""

import pytest

torch = pytest.importorskip("torch", reason="the training extra (torch) is not installed")

from benchmarks.video_vae import CHANNELS, GROUP, VideoVae, vae_loss  # noqa: E402
from tests.unit.training.shaken import shaken  # noqa: E402


def test_a_clip_becomes_latents_and_frames_again() -> None:
    vae, clip = VideoVae(), torch.zeros(2, 8, 64, 32, 3)
    mean, log_variance = vae.encode(clip)
    assert mean.shape == log_variance.shape == (2, 8 // GROUP, 8, 4, CHANNELS)
    assert vae.decode(mean).shape == clip.shape
    assert vae_loss(vae, clip, torch.Generator().manual_seed(0)).ndim == 0


def test_no_frame_hears_of_a_later_group() -> None:
    vae, generator = shaken(VideoVae()), torch.Generator().manual_seed(1)
    clip = torch.randn(1, 12, 16, 16, 3, generator=generator)
    later = clip.clone()
    later[:, 8:] += 1.0
    with torch.no_grad():
        one, other = vae.encode(clip)[0], vae.encode(later)[0]
        assert torch.equal(one[:, :2], other[:, :2])
        assert not torch.allclose(one[:, 2], other[:, 2], atol=1e-4)
        made, changed = vae.decode(one), vae.decode(other)
    assert torch.allclose(made[:, :8], changed[:, :8], atol=1e-6)
    assert not torch.allclose(made[:, 8:], changed[:, 8:], atol=1e-4)
