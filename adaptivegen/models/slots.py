"""Text side of the Pocket models: a prompt becomes slots that condition them, and a vector that finds its like.

all-MiniLM-L6-v2 gives token embeddings and one pooled vector; the reader turns the tokens into one slot per object and
one for the setting. (The pooled vector cannot tell left from right, so it conditions nothing.) How near the prompt is
to anything the models were trained on is told by the nearest of a few thousand captions of their world.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptivegen.models.runtime import open_session
from adaptivegen.models.tokens import Floats, TokenEncoder

TEXT_TOKENS = 64  # word pieces that condition a model; what a longer prompt says later is not seen by it


@dataclass(frozen=True, slots=True)
class PromptSlots:
    """What the models see of a prompt, float32: slots (4, 192); pooled (384,), unit length.

    familiarity: cosine in [-1, 1] between the prompt and the nearest known caption; low means that the models know
    little of what was asked for.
    """

    slots: Floats
    pooled: Floats
    familiarity: float


class SlotEncoder:
    """Token encoder, `reader.onnx` and `captions.npy` of one folder."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        self._encoder = TokenEncoder(folder, threads=threads, limit=TEXT_TOKENS)
        self._reader = open_session(folder / "reader.onnx", threads=threads)
        known = np.load(folder / "captions.npy").astype(np.float32)  # (N, 384) int8, of any length
        self._known = known / np.linalg.norm(known, axis=1, keepdims=True)

    def encode(self, prompt: str) -> PromptSlots:
        """Encode one prompt."""
        text = self._encoder.encode(prompt)
        (slots,) = self._reader.run(None, {"tokens": text.tokens[None]})  # (1, 4, 192)
        familiarity = float((self._known @ text.pooled).max())
        return PromptSlots(slots=slots[0], pooled=text.pooled, familiarity=familiarity)
