"""Where things are, from what was found."""

import numpy as np

from adaptivegen.models.layout import LAYOUT_SHAPE, NOWHERE, OPEN, THING_VALUES, Found, followed


def found(told: dict[int, list[int]]) -> Found:
    """Things, by row, that were found in these frames: the x of each is a tenth of its frame's number."""
    layout, where = OPEN.copy(), OPEN[..., 0].copy()
    for row, frames in told.items():
        where[row, frames] = 1.0
        layout[row, frames, 0], layout[row, frames, THING_VALUES - 1] = np.asarray(frames) / 10, 1.0
    return Found(layout, where)


def test_a_thing_stands_where_it_was_nearest_in_time() -> None:
    layout = followed(found({0: [4, 5, 7], 2: [4, 5, 6, 7]}), 4)
    np.testing.assert_allclose(layout[0, :, 0], [0.4] * 5 + [0.5, 0.5, 0.7])
    assert layout[[0, 2], :, THING_VALUES - 1].all()
    assert not layout[[1, 3]].any()


def test_what_was_seen_in_less_than_half_of_the_frames_is_left_out() -> None:
    layout = followed(found({0: [4, 5, 6, 7], 1: [4], 2: [5, 6]}), 4)
    assert layout[:, 0, THING_VALUES - 1].tolist() == [1, 0, 1, 0]
    assert not followed(found({0: [4]}), 4).any()
    assert not followed(found({0: [1, 2, 3]}), 8).any()


def test_nothing_found_leaves_the_layout_open() -> None:
    for nothing in (None, NOWHERE):
        layout = followed(nothing, 8)
        assert layout.shape == LAYOUT_SHAPE
        assert not layout.any()
