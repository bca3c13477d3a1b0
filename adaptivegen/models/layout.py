"""Where the objects of a clip are: sampled from noise and text before the first pixel, always in ONNX Runtime.

The planner is the same file in the same runtime wherever a model runs, so that edge and cloud, given one prompt and one
seed, put the objects into the same places. That is what makes a draft predict its final.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptivegen.models.runtime import open_session
from adaptivegen.models.slots import PromptSlots
from adaptivegen.models.tokens import Floats

LAYOUT_SHAPE = (3, 8, 6)  # objects, frames, and x, y, radius (frame widths), cosine, sine, presence
STEPS = 12  # of sampling; a graph of all of them takes a second to load
OPEN = np.zeros(LAYOUT_SHAPE, np.float32)  # nothing is said about where things are


@dataclass(frozen=True, slots=True)
class Scene:
    """What a base model is told to show: the prompt, and a layout LAYOUT_SHAPE of its objects, or OPEN."""

    text: PromptSlots
    layout: Floats


class LayoutPlanner:
    """The planner of one file."""

    def __init__(self, path: Path, *, threads: int) -> None:
        self._session = open_session(path, threads=threads)

    def plan(self, text: PromptSlots, noise: Floats) -> Floats:
        """Layout LAYOUT_SHAPE for unit normal noise of that shape: STEPS steps of the planner's flow."""
        z, layout = noise[None], OPEN[None]
        for step in range(STEPS):
            feed = {"noisy": z, "t": np.asarray([step / STEPS], np.float32), "slots": text.slots[None]}
            clean, layout = self._session.run(None, feed)
            z = z + (clean - z) / np.float32(STEPS - step)
        planned: Floats = np.asarray(layout[0], dtype=np.float32)  # the last step ends at the clean layout
        return planned
