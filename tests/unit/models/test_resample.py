"""Resizing clips."""

import numpy as np
import pytest

from adaptivegen.models.resample import resize, to_bytes, to_unit, weights


@pytest.mark.parametrize(("source", "target"), [(24, 8), (8, 24), (128, 32), (32, 128), (7, 5), (1, 8), (5, 1)])
def test_weights_are_means(source: int, target: int) -> None:
    rows = weights(source, target)
    assert rows.shape == (target, source)
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-5)
    assert rows.min() >= 0.0


def test_a_flat_clip_stays_flat_at_any_size() -> None:
    clip = np.full((5, 9, 7, 3), 0.25, dtype=np.float32)
    out = resize(clip, 8, 32, 32)
    assert out.shape == (8, 32, 32, 3)
    np.testing.assert_allclose(out, 0.25, atol=1e-5)


def test_left_stays_left_and_first_stays_first() -> None:
    clip = np.zeros((6, 16, 16, 3), dtype=np.float32)
    clip[:3, :, :8] = 1.0
    out = resize(clip, 2, 4, 4)
    assert out[0, :, :2].mean() > 0.8
    assert out[0, :, 2:].mean() < 0.2
    assert out[1].mean() < 0.2


def test_bytes_survive_the_round_trip() -> None:
    clip = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    np.testing.assert_array_equal(to_bytes(to_unit(clip)), clip)
