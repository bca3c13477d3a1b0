"""A live session over networks whose answer is known: chunks, what is held, what is refused."""

import numpy as np
import pytest

from adaptivegen.errors import InvalidRequest
from adaptivegen.models.layout import OPEN, Found
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


def found(x: float, *told: int) -> Found:
    """The first thing at (x, 0.5) in the frames told, of the second half of a clip."""
    layout, where = OPEN.copy(), OPEN[..., 0].copy()
    where[0, list(told)] = 1.0
    layout[0, list(told), :6] = (x, 0.5, 0.2, 1.0, 0.0, 1.0)
    return Found(layout, where)


def test_things_of_a_stream_stay_where_they_are_found() -> None:
    networks = KeepingNetworks(found(0.3, 4, 5, 6, 7))
    session = LiveSession(networks, "a blue ball", shows="a red ball")
    session.push(frames(1))
    networks.found = found(0.7, 4, 5, 6, 7)
    session.push(frames(2))
    assert networks.layouts[0][0, :, 0].tolist() == pytest.approx([0.3] * 8)
    assert networks.layouts[1][0, :, 0].tolist() == pytest.approx([0.3] * 4 + [0.7] * 4)
    assert not networks.layouts[1][1:].any()  # neither of what is not there nor of the ground
    assert networks.read[:2] == ["a red ball", "a blue ball"]
    assert [text.familiarity for text in networks.looked_for] == [networks.familiarity("a red ball")] * 2
    for given in networks.searched:
        assert given.mask.tolist() == [0] * CHUNK + [1] * CHUNK
    assert networks.searched[1].clip[CHUNK:].mean() == pytest.approx(2 / 127.5 - 1, abs=0.01)


def test_what_the_prompt_names_is_looked_for_where_nobody_says_what_a_stream_shows() -> None:
    networks = KeepingNetworks(found(0.3, 4, 5, 6, 7))
    session = LiveSession(networks, "a blue ball")
    session.push(frames(1))
    session.restyle("a green star")
    session.push(frames(1))
    assert [text.familiarity for text in networks.looked_for] == [
        networks.familiarity("a blue ball"),
        networks.familiarity("a green star"),
    ]


def test_a_thing_that_goes_is_let_go() -> None:
    networks = KeepingNetworks(found(0.3, 4, 5, 6, 7))
    session = LiveSession(networks, "a blue ball")
    session.push(frames(1))
    networks.found = None
    session.push(frames(1))
    assert networks.layouts[1][0, :, 5].tolist() == [1.0] * CHUNK + [0.0] * CHUNK
    session.push(frames(1))
    assert not networks.layouts[2].any()


def test_a_stream_in_which_nothing_is_found_is_restyled_without_guidance_or_layout() -> None:
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
