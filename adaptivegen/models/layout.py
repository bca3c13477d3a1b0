"""Where the things of a clip are: sampled from noise and text before the first pixel, always in ONNX Runtime.

The planner is the same file in the same runtime wherever a model runs, so that edge and cloud, given one prompt and one
seed, put the objects into the same places. That is what makes a draft predict its final. Where frames are given, the
finder says where the things are in these, and the planner goes on from there.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptivegen.errors import GenerationFailed
from adaptivegen.models.runtime import open_session
from adaptivegen.models.slots import PromptSlots
from adaptivegen.models.starts import Arranged
from adaptivegen.models.tokens import Floats

THING_VALUES, LAYERS = 6, 2  # x, y, radius (frame widths), cosine, sine, presence
# Objects and ground, frames, and after a thing's values where the ground's layers lie, and 1 where that is told.
LAYOUT_SHAPE = (4, 8, THING_VALUES + LAYERS + 1)
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
        made = self._session.get_inputs()[0].shape[1:]
        if made != [*LAYOUT_SHAPE]:
            raise GenerationFailed(f"{planner.name} plans layouts of {tuple(made)}, this version wants {LAYOUT_SHAPE}")
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
        if found.told.any():
            planned[..., THING_VALUES:] = 0.0  # where the ground's layers lie is to be seen in the given frames
        return planned

    def find(self, text: PromptSlots, given: Arranged) -> Found | None:
        """Where the prompt's objects are in the frames that are held; None where none of them is there."""
        held = given.mask > 0
        (values,) = self._finder.run(None, {"frames": given.clip[None, held], "slots": text.slots[None]})
        return found_in(np.asarray(values[0], dtype=np.float32), held)


def followed(found: Found | None, looked_at: int) -> Floats:
    """A layout LAYOUT_SHAPE of things as they were found, each in every frame or in none; OPEN where nothing was.

    A thing that was found in half of the frames that were looked at, or more, stands in each of the others as in the
    nearest where it was. Nothing is said of the ground.
    """
    layout = OPEN.copy()
    if found is None:
        return layout
    frames = np.arange(LAYOUT_SHAPE[1])
    for row, told in enumerate(found.told > 0):
        seen = np.flatnonzero(told)
        if 2 * len(seen) >= looked_at and len(seen) > 0:
            layout[row] = found.layout[row, seen[np.abs(frames[:, None] - seen).argmin(axis=1)]]
    return layout


def found_in(values: Floats, held: NDArray[np.bool_]) -> Found | None:
    """What the finder says of the frames that are held (8,): values (3, T held, THING_VALUES), the last a logit."""
    there = values[..., 5] > 0.0  # (3, T held)
    if not there.any():
        return None
    objects, frames = np.nonzero(there)
    places = objects, np.flatnonzero(held)[frames]
    layout, told = OPEN.copy(), OPEN[..., 0].copy()
    layout[(*places, slice(THING_VALUES))], told[places] = values[there], 1.0
    layout[..., THING_VALUES - 1] = told
    return Found(layout, told)
