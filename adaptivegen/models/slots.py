"""Text side of the Pocket models: a prompt becomes slots that condition them, and a vector that finds its like.

all-MiniLM-L6-v2 gives token embeddings and one pooled vector; the reader turns the tokens into one slot per object and
one for the setting. (The pooled vector cannot tell left from right, so it conditions nothing.) How near the prompt is
to anything the models were trained on is told by the nearest of a few thousand captions of their world.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from adaptivegen.models.runtime import open_session

TEXT_TOKENS = 64  # word pieces that condition a model; what a longer prompt says later is not seen by it
TEXT_DIM = 384
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenEmbedding:
    """One encoded prompt, float32: tokens (L, 384) with L <= TEXT_TOKENS, pooled (384,) of unit length."""

    tokens: Floats
    pooled: Floats


@dataclass(frozen=True, slots=True)
class PromptSlots:
    """What the models see of a prompt, float32: slots (4, 192); pooled (384,), unit length.

    familiarity: cosine in [-1, 1] between the prompt and the nearest known caption; low means that the models know
    little of what was asked for.
    """

    slots: Floats
    pooled: Floats
    familiarity: float


class TokenEncoder:
    """Loads `encoder.onnx` and `tokenizer.json` from a folder; `encode` is deterministic and needs no network."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=TEXT_TOKENS)
        self._session = open_session(folder / "encoder.onnx", threads=threads)

    def encode(self, prompt: str) -> TokenEmbedding:
        """Encode one prompt; text beyond TEXT_TOKENS word pieces is cut off."""
        ids = np.asarray([self._tokenizer.encode(prompt.lower()).ids], dtype=np.int64)  # (1, L)
        tokens, pooled = self._session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return TokenEmbedding(tokens=tokens[0], pooled=pooled[0])


class SlotEncoder:
    """Token encoder, `reader.onnx` and `captions.npy` of one folder."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        self._encoder = TokenEncoder(folder, threads=threads)
        self._reader = open_session(folder / "reader.onnx", threads=threads)
        known = np.load(folder / "captions.npy").astype(np.float32)  # (N, 384) int8, of any length
        self._known = known / np.linalg.norm(known, axis=1, keepdims=True)

    def encode(self, prompt: str) -> PromptSlots:
        """Encode one prompt."""
        text = self._encoder.encode(prompt)
        (slots,) = self._reader.run(None, {"tokens": text.tokens[None]})  # (1, 4, 192)
        familiarity = float((self._known @ text.pooled).max())
        return PromptSlots(slots=slots[0], pooled=text.pooled, familiarity=familiarity)
