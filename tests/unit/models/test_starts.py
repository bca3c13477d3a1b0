"""Start clips become the base's clip: the right frames in the right places, the right ones held."""

from typing import get_args

import numpy as np
import pytest

from adaptivegen.errors import InvalidRequest
from adaptivegen.models.base import TASKS, Clip, Task
from adaptivegen.models.limits import check_task
from adaptivegen.models.starts import arranged, instants


def ramp(frames: int = 24, height: int = 64, width: int = 64) -> Clip:
    """Frame i is i * 10 everywhere."""
    shades = np.arange(frames, dtype=np.uint8)[:, None, None, None] * 10
    return np.broadcast_to(shades, (frames, height, width, 3)).copy()


def shades(clip: "np.typing.NDArray[np.float32]") -> list[int]:
    return [round((float(frame.mean()) + 1) * 127.5) for frame in clip]


def test_a_clip_is_sampled_at_the_instants_of_the_base() -> None:
    given = arranged(ramp(), "restyle", 8, 16)
    assert given.clip.shape == (8, 16, 16, 3)
    assert shades(given.clip) == [10 * (3 * i + 1) for i in range(8)]
    assert given.mask.sum() == 0


def test_an_image_is_held_and_fills_the_rest() -> None:
    given = arranged(ramp(24)[5:6], "animate", 8, 16)
    assert shades(given.clip) == [50] * 8
    assert given.mask.tolist() == [1] + [0] * 7


def test_the_draft_of_a_moved_image_keeps_its_motion_and_its_first_frame_is_held() -> None:
    given = arranged(ramp(), "animate", 8, 16)
    assert shades(given.clip) == [0, 40, 70, 100, 130, 160, 190, 220]
    assert given.mask.tolist() == [1] + [0] * 7


def test_an_extension_holds_the_second_half_of_what_it_extends() -> None:
    given = arranged(ramp(), "extend", 8, 16)
    assert shades(given.clip) == [130, 160, 190, 220, 220, 220, 220, 220]
    assert given.mask.tolist() == [1] * 4 + [0] * 4


def test_an_interpolation_holds_both_ends() -> None:
    given = arranged(ramp()[:15], "interpolate", 8, 16)
    assert shades(given.clip) == [0, 20, 40, 60, 80, 100, 120, 140]
    assert given.mask.tolist() == [1, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(("task", "held"), [("extended", [0, 1, 2, 3]), ("interpolated", [0, 7])])
def test_a_draft_of_an_extension_or_interpolation_is_kept_whole_and_what_was_given_is_held(
    task: Task, held: list[int]
) -> None:
    given = arranged(ramp(), task, 8, 16)
    assert shades(given.clip) == [10, 40, 70, 100, 130, 160, 190, 220]
    assert np.flatnonzero(given.mask).tolist() == held


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("frames", [1, 2, 7, 100])
def test_every_length_and_shape_fits(task: Task, frames: int) -> None:
    given = arranged(np.zeros((frames, 30, 50, 3), np.uint8), task, 8, 16)
    assert given.clip.shape == (8, 16, 16, 3)
    assert given.clip.dtype == np.float32


def test_instants_of_a_short_clip_repeat_its_frames() -> None:
    assert [int(frame[0, 0, 0]) for frame in instants(ramp(2), 4)] == [0, 0, 10, 10]


def test_tasks_are_checked() -> None:
    assert set(TASKS) == set(get_args(Task))
    for task in TASKS:
        check_task(task, has_start=True)
    check_task("restyle", has_start=False)
    for task, has_start in (("animate", False), ("paint", True)):
        with pytest.raises(InvalidRequest) as caught:
            check_task(task, has_start=has_start)
        assert caught.value.param == "task"
