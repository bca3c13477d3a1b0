"""A live session over networks whose answer is known: chunks, what is held, what is refused."""

import numpy as np
import pytest

from adaptivegen.errors import InvalidRequest
from adaptivegen.models.live import CHUNK, OUT_FRAMES, LiveSession, LiveSettings
from tests.unit.models.test_cascade import KeepingNetworks


def frames(shade: int, count: int = 12) -> "np.typing.NDArray[np.uint8]":
    return np.full((count, 36, 64, 3), shade, np.uint8)


@pytest.mark.parametrize("count", [CHUNK, 12, 60])
def test_a_chunk_of_any_length_becomes_half_a_clip(count: int) -> None:
    made = LiveSession(KeepingNetworks(), "a red ball").push(frames(9, count))
    assert made.shape == (OUT_FRAMES, 128, 128, 3)
    assert made.dtype == np.uint8


def test_the_first_chunk_goes_on_from_nothing_and_the_next_from_what_was_shown() -> None:
    networks = KeepingNetworks()
    session = LiveSession(networks, "a red ball", LiveSettings(strength=0.5, steps=2))
    session.push(frames(0))
    shown = networks.inputs[-1] * 0.5  # what these networks make of their last input
    session.push(frames(255))
    assert [t for t, _ in networks.seen] == [0.5, 0.75] * 2
    assert not networks.known[0].mask.any()
    assert networks.known[2].mask.tolist() == [1] * CHUNK + [0] * CHUNK
    np.testing.assert_allclose(networks.known[2].clip[:CHUNK], shown[CHUNK:], atol=1e-6)
    assert networks.inputs[2][CHUNK:].mean() == pytest.approx(0.5, abs=0.02)  # white, half of the way from noise


def test_a_stream_is_restyled_without_guidance_or_layout() -> None:
    networks = KeepingNetworks()
    session = LiveSession(networks, "a red ball")
    session.push(frames(100))
    session.restyle("a blue star")
    session.push(frames(100))
    assert all(conditional for _, conditional in networks.seen)
    assert not any(layout.any() for layout in networks.layouts)


def test_the_same_stream_and_seed_give_the_same_frames() -> None:
    one, again, other = (
        LiveSession(KeepingNetworks(), "a red ball", LiveSettings(seed=seed)).push(frames(50)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.parametrize(
    ("name", "value"), [("strength", 0.0), ("strength", 1.0), ("strength", float("nan")), ("steps", 0), ("steps", 5)]
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        LiveSettings(**{name: value})  # type: ignore[arg-type]
    assert caught.value.param == name


def test_too_few_frames_and_what_are_no_frames_are_refused() -> None:
    session = LiveSession(KeepingNetworks(), "a red ball")
    for bad in (frames(1, CHUNK - 1), np.zeros((12, 36, 64, 4), np.uint8)):
        with pytest.raises(InvalidRequest):
            session.push(bad)
    assert session.push(frames(1)).shape[0] == OUT_FRAMES
