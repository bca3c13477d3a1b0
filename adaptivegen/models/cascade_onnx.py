"""Pocket's networks in ONNX Runtime on the CPU.

Decides which graph runs with which inputs; `runtime` decides how sessions are opened.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptivegen.errors import GenerationFailed
from adaptivegen.models.layout import NOWHERE, Found, LayoutPlanner, Scene
from adaptivegen.models.runtime import open_session, ort
from adaptivegen.models.slots import PromptSlots, SlotEncoder
from adaptivegen.models.starts import Arranged

Floats = NDArray[np.float32]


class CascadeOnnx:
    """`adaptivegen.models.cascade.Networks` over verified files: base, upsampler, doubler (optional), text."""

    def __init__(self, paths: dict[str, Path], *, threads: int) -> None:
        self._text = SlotEncoder(paths["text_encoder"].parent, threads=threads)
        self._planner = LayoutPlanner(paths["planner"], paths["finder"], threads=threads)
        self._base = open_session(paths["base"], threads=threads)
        self._upsampler = open_session(paths["upsampler"], threads=threads)
        self._doubler = open_session(paths["doubler"], threads=threads) if "doubler" in paths else None

    def encode(self, prompt: str) -> PromptSlots:
        """Embed the prompt."""
        return self._text.encode(prompt)

    def find(self, text: PromptSlots, given: Arranged) -> Found | None:
        """Where the prompt's objects are in the frames that are held."""
        return self._planner.find(text, given)

    def plan(self, text: PromptSlots, noise: Floats, found: Found = NOWHERE) -> Floats:
        """The layout that this noise and text lead to, from where things were found."""
        return self._planner.plan(text, noise, found)

    def predict(self, noisy: Floats, t: float, scene: Scene, known: Arranged, *, conditional: bool) -> Floats:
        """One base evaluation, (8, 48, 48, 3) -> the same."""
        feed = {
            "noisy": noisy[None],
            "t": np.asarray([t], dtype=np.float32),
            "slots": scene.text.slots[None],
            "keep": np.asarray([conditional], dtype=np.float32),
            "layout": scene.layout[None],
            "known": known.clip[None],
            "mask": known.mask[None],
        }
        clean: Floats = self._run(self._base, feed)[0]
        return clean

    def upsample(self, low: Floats, level: float, text: PromptSlots) -> Floats:
        """(8, 48, 48, 3) -> (24, 128, 128, 3)."""
        feed = {"low": low[None], "level": np.asarray([level], dtype=np.float32), "slots": text.slots[None]}
        high: Floats = self._run(self._upsampler, feed)[0]
        return high

    def double(self, frames: Floats) -> Floats:
        """(N, H, W, 3) -> (N, 2H, 2W, 3)."""
        if self._doubler is None:
            raise GenerationFailed("this model has no doubler; its card must not offer the larger size")
        return self._run(self._doubler, {"frames": np.ascontiguousarray(frames)})

    @staticmethod
    def _run(graph: ort.InferenceSession, feed: dict[str, Floats]) -> Floats:
        out = graph.run(None, feed)[0]
        return np.asarray(out, dtype=np.float32)
