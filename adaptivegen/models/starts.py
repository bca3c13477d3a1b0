"""Start clips of any size and length as a base model's clip: which frames stand where, and which are held. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptivegen.errors import InvalidRequest
from adaptivegen.models.base import Clip, Task
from adaptivegen.models.resample import resize, to_unit


@dataclass(frozen=True, slots=True)
class Arranged:
    """clip (T, S, S, 3) float32 in [-1, 1] to begin from; mask (T,) float32, 1 where a frame is given and kept."""

    clip: NDArray[np.float32]
    mask: NDArray[np.float32]


def check_clip(start: Clip) -> None:
    """Raise InvalidRequest when a start is no RGB clip."""
    if start.dtype != np.uint8 or start.ndim != 4 or start.shape[-1] != 3 or 0 in start.shape:
        raise InvalidRequest.field("start", f"{start.dtype} {start.shape}", "uint8 (T, H, W, 3), nothing empty")


def arranged(start: Clip, task: Task, frames: int, side: int) -> Arranged:
    """A start clip for a base of `frames` frames of `side` pixels; raises InvalidRequest when it is no RGB clip.

    restyle, refine: the whole clip. animate: the same with the first frame held (an image moves nowhere, a draft does).
    extend: its second half as the first half, held, and its last frame after it. interpolate: a blend of its first and
    last frame, both ends held. extended, interpolated: the whole clip with its first half, or both ends, held.
    """
    check_clip(start)
    mask = np.zeros(frames, dtype=np.float32)
    if task in ("extend", "extended"):
        mask[: frames // 2] = 1.0
    if task in ("interpolate", "interpolated"):
        mask[[0, -1]] = 1.0
    if task == "animate":
        mask[0] = 1.0
        return Arranged(_low(np.concatenate([start[:1], instants(start, frames)[1:]]), side), mask)
    if task == "extend":
        half = frames // 2
        end = _low(instants(start[len(start) // 2 :], half), side)
        rest = np.repeat(end[-1:], frames - half, axis=0)
        return Arranged(np.concatenate([end, rest]), mask)
    if task == "interpolate":
        first, last = _low(start[[0, -1]], side)
        share = np.linspace(0.0, 1.0, frames, dtype=np.float32)[:, None, None, None]
        return Arranged((1.0 - share) * first + share * last, mask)
    return Arranged(_low(instants(start, frames), side), mask)


def instants(clip: Clip, frames: int) -> Clip:
    """The frames nearest to the middles of `frames` equal intervals: (frames, H, W, 3).

    Picked, not blended: a blend shows a moving object twice, and models learn from instants.
    """
    places = (np.arange(frames) + 0.5) * len(clip) / frames - 0.5
    picked: Clip = clip[np.rint(places).astype(int).clip(0, len(clip) - 1)]
    return picked


def _low(clip: Clip, side: int) -> NDArray[np.float32]:
    return resize(to_unit(clip), len(clip), side, side)
