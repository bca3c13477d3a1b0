"""Where the things of a clip are: sampled from noise and text before the first pixel, always in ONNX Runtime.

The planner is the same file in the same runtime wherever a model runs, so that edge and cloud, given one prompt and one
seed, put the objects into the same places. That is what makes a draft predict its final. Where frames are given, the
finder says where the things are in these, and the planner goes on from there.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptivegen.models.runtime import open_session
from adaptivegen.models.slots import PromptSlots
from adaptivegen.models.starts import Arranged
from adaptivegen.models.tokens import Floats

LAYOUT_SHAPE = (4, 8, 6)  # objects and ground, frames, and x, y, radius (frame widths), cosine, sine, presence
STEPS = 12  # of sampling; a graph of all of them takes a second to load
OPEN = np.zeros(LAYOUT_SHAPE, np.float32)  # nothing is said about where things are


@dataclass(frozen=True, slots=True)
class Scene:
    """What a base model is told to show: the prompt, and a layout LAYOUT_SHAPE of its objects and ground, or OPEN."""

    text: PromptSlots
    layout: Floats


@dataclass(frozen=True, slots=True)
class Found:
    """Where things are in given frames: layout LAYOUT_SHAPE, true where told (4, 8) is 1."""

    layout: Floats
    told: Floats


NOWHERE = Found(OPEN, OPEN[..., 0])


class LayoutPlanner:
    """Planner and finder of two files."""

    def __init__(self, planner: Path, finder: Path, *, threads: int) -> None:
        self._session = open_session(planner, threads=threads)
        self._finder = open_session(finder, threads=threads)

    def plan(self, text: PromptSlots, noise: Floats, found: Found = NOWHERE) -> Floats:
        """Layout LAYOUT_SHAPE for unit normal noise of that shape: STEPS steps of the planner's flow."""
        z, layout = noise[None], OPEN[None]
        fixed = {"slots": text.slots[None], "known": found.layout[None], "told": found.told[None]}
        for step in range(STEPS):
            feed = {"noisy": z, "t": np.asarray([step / STEPS], np.float32), **fixed}
            clean, layout = self._session.run(None, feed)
            z = z + (clean - z) / np.float32(STEPS - step)
        planned: Floats = np.asarray(layout[0], dtype=np.float32)  # the last step ends at the clean layout
        return planned

    def find(self, text: PromptSlots, given: Arranged) -> Found | None:
        """Where the prompt's objects are in the frames that are held; None where none of them is there."""
        held = given.mask > 0
        (values,) = self._finder.run(None, {"frames": given.clip[None, held], "slots": text.slots[None]})
        return found_in(np.asarray(values[0], dtype=np.float32), held)


def found_in(values: Floats, held: NDArray[np.bool_]) -> Found | None:
    """What the finder says of the frames that are held (8,): values (3, T held, 6), the last a logit of presence."""
    there = values[..., 5] > 0.0  # (3, T held)
    if not there.any():
        return None
    objects, frames = np.nonzero(there)
    places = objects, np.flatnonzero(held)[frames]
    layout, told = OPEN.copy(), OPEN[..., 0].copy()
    layout[places], told[places] = values[there], 1.0
    layout[..., 5] = told
    return Found(layout, told)
