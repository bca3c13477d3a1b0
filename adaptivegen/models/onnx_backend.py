"""Pocket's networks in ONNX Runtime on the CPU.

Decides session options only. Spinning is off: several processes share the cores of an edge node.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from adaptivegen.errors import GenerationFailed
from adaptivegen.models.text import TextEmbedding, TextEncoder

Floats = NDArray[np.float32]


def session(path: Path, *, threads: int) -> ort.InferenceSession:
    """Open one graph on `threads` threads."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])


class OnnxNetworks:
    """`adaptivegen.models.pocket.Networks` over verified files: base, upsampler, doubler (optional), text."""

    def __init__(self, paths: dict[str, Path], *, threads: int) -> None:
        self._text = TextEncoder(paths["text_encoder"].parent, threads=threads)
        self._base = session(paths["base"], threads=threads)
        self._upsampler = session(paths["upsampler"], threads=threads)
        self._doubler = session(paths["doubler"], threads=threads) if "doubler" in paths else None

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
