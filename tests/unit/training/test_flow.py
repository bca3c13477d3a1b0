"""The path, the loss, and the networks around them."""

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the training extra (torch) is not installed")

from core_cloud.models.pocket import BaseParams, BaseTransformer  # noqa: E402
from core_cloud.models.upsampler import (  # noqa: E402
    FrameDoubler,
    SharpenerParams,
    SpaceTimeUpsampler,
    UpsamplerParams,
)
from training.flow import noised, sample_t, velocity_loss  # noqa: E402
from training.train import grow, rate_factor  # noqa: E402
from training.train_upsampler import grow_upsampler  # noqa: E402

SMALL = BaseParams(dim=64, depth=2, heads=1)


def inputs(batch: int = 2) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(batch, 8, 32, 32, 3, generator=generator)
    tokens = torch.randn(batch, 32, 384, generator=generator)
    return clip, torch.full((batch,), 0.3), tokens, torch.ones(batch, 32), torch.randn(batch, 384, generator=generator)


def shaken(model: Any) -> Any:
    """Replace the zeros of the initialisation, so that every path carries signal."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=generator))
    return model.eval()


def test_the_path_starts_at_the_noise_and_ends_at_the_clip() -> None:
    clip, noise = torch.randn(2, 2, 8, 4, 4, 3).unbind(0)
    assert torch.equal(noised(clip, noise, torch.zeros(2)), noise)
    assert torch.equal(noised(clip, noise, torch.ones(2)), clip)


def test_a_perfect_prediction_has_no_loss_and_errors_near_the_clip_weigh_more() -> None:
    clip = torch.randn(2, 8, 4, 4, 3)
    assert velocity_loss(clip, clip, torch.tensor([0.2, 0.9])).item() == 0.0
    wrong = clip + 0.1
    assert velocity_loss(wrong, clip, torch.full((2,), 0.6)) > velocity_loss(wrong, clip, torch.full((2,), 0.1))


def test_times_lie_in_the_path_and_start_often_enough_at_noise() -> None:
    t = sample_t(4000, torch.Generator().manual_seed(0))
    assert t.min() == 0.0
    assert t.max() < 1.0
    assert 0.05 < float((t == 0).float().mean()) < 0.3


def test_patches_survive_the_round_trip() -> None:
    model, clip = BaseTransformer(SMALL), inputs()[0]
    assert torch.equal(model.unpatchify(model.patchify(clip)), clip)


def test_without_text_the_words_do_not_matter_and_with_text_they_do() -> None:
    model = shaken(BaseTransformer(SMALL))
    clip, t, tokens, mask, pooled = inputs()
    with torch.no_grad():
        blind = model(clip, t, tokens, mask * 0, pooled)
        assert torch.allclose(blind, model(clip, t, -tokens, mask * 0, -pooled), atol=1e-5)
        told = model(clip, t, tokens, mask, pooled)
        assert not torch.allclose(told, model(clip, t, -tokens, mask, pooled), atol=1e-3)


def test_a_grown_model_computes_the_same() -> None:
    model = shaken(BaseTransformer(SMALL))
    deeper = grow(model, 5).eval()
    with torch.no_grad():
        assert torch.allclose(model(*inputs()), deeper(*inputs()), atol=1e-5)
    assert deeper.params.depth == 5


def test_a_grown_upsampler_computes_the_same() -> None:
    small = shaken(SpaceTimeUpsampler(UpsamplerParams(channels=16, depth=1)))
    clip, level, tokens, mask, _ = inputs(1)
    with torch.no_grad():
        wanted = small(clip, level, tokens, mask)
        assert wanted.shape == (1, 24, 128, 128, 3)
        assert torch.allclose(wanted, grow_upsampler(small, 3)(clip, level, tokens, mask), atol=1e-5)


def test_the_doubler_doubles() -> None:
    assert FrameDoubler(SharpenerParams(channels=8, depth=1))(torch.zeros(2, 16, 16, 3)).shape == (2, 32, 32, 3)


def test_the_rate_warms_up_and_falls_over_the_second_half() -> None:
    assert rate_factor(0.0, 40) < 0.1
    assert rate_factor(10.0, 40) == 1.0
    assert rate_factor(30.0, 40) == pytest.approx(0.5)
    assert 0 < rate_factor(40.0, 40) < 0.05
