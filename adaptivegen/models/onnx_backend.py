"""Pocket's networks in ONNX Runtime on the CPU.

Decides which graph runs with which inputs; `runtime` decides how sessions are opened.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptivegen.errors import GenerationFailed
from adaptivegen.models.runtime import open_session, ort
from adaptivegen.models.text import TextEmbedding, TextEncoder

Floats = NDArray[np.float32]


class OnnxNetworks:
    """`adaptivegen.models.pocket.Networks` over verified files: base, upsampler, doubler (optional), text."""

    def __init__(self, paths: dict[str, Path], *, threads: int) -> None:
        self._text = TextEncoder(paths["text_encoder"].parent, threads=threads)
        self._base = open_session(paths["base"], threads=threads)
        self._upsampler = open_session(paths["upsampler"], threads=threads)
        self._doubler = open_session(paths["doubler"], threads=threads) if "doubler" in paths else None

    def encode(self, prompt: str) -> TextEmbedding:
        """Embed the prompt."""
        return self._text.encode(prompt)

    def predict(self, noisy: Floats, t: float, text: TextEmbedding, *, conditional: bool) -> Floats:
        """One base evaluation, (8, 32, 32, 3) -> the same; unconditional is a mask of zeros."""
        feed = {
            "noisy": noisy[None],
            "t": np.asarray([t], dtype=np.float32),
            "tokens": text.tokens[None],
            "mask": text.mask[None] * np.float32(conditional),
            "pooled": text.pooled[None],
        }
        clean: Floats = self._run(self._base, feed)[0]
        return clean

    def upsample(self, low: Floats, level: float, text: TextEmbedding) -> Floats:
        """(8, 32, 32, 3) -> (24, 128, 128, 3)."""
        feed = {
            "low": low[None],
            "level": np.asarray([level], dtype=np.float32),
            "tokens": text.tokens[None],
            "mask": text.mask[None],
        }
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
