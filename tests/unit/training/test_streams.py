"""What is measured of live sessions."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the training extra (torch) is not installed")

from adaptivegen.models.live import OUT_FRAMES, LiveSettings
from tests.unit.models.test_cascade import KeepingNetworks
from training.grammar import Scene, Thing
from training.streams import CHUNKS, SHIFT, jump, recoloured, redrawn

SCENE = Scene((Thing("star", "red", "big", motion="left"), Thing("ring", "black")), "sea", "pan", "dusk")


def test_only_colours_change_and_stay_different() -> None:
    other = recoloured(SCENE)
    assert [thing.colour for thing in other.things] == ["blue", "cyan"]
    assert recoloured(other, -SHIFT) == SCENE
    assert (other.things[0].shape, other.things[0].motion, other.camera) == ("star", "left", "pan")


def test_a_stream_comes_back_frame_for_frame() -> None:
    stream = np.zeros((CHUNKS * OUT_FRAMES, 32, 48, 3), np.uint8)
    assert redrawn(KeepingNetworks(), "a blue ball", "a red ball", stream, LiveSettings()).shape == (
        len(stream),
        128,
        128,
        3,
    )


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (30, 31.0)])
def test_a_jump_where_chunks_meet_is_told(step: int, expected: float) -> None:
    frames = np.arange(CHUNKS * OUT_FRAMES)
    shades = frames + step * (frames // OUT_FRAMES)
    clip = np.broadcast_to(shades[:, None, None, None], (len(shades), 4, 4, 3)).astype(np.uint8)
    assert jump(clip) == pytest.approx(expected)
