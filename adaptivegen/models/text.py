"""Text encoder: a prompt becomes token embeddings and one pooled vector, by all-MiniLM-L6-v2 in ONNX Runtime.

Decides tokenisation and truncation. The token embeddings condition the Pocket models (the pooled vector cannot tell
left from right); the pooled vector modulates them and indexes near-hits.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from adaptivegen.models.runtime import open_session

TEXT_TOKENS = 32  # tokens that condition a model; what a longer prompt says later is not seen by it
TEXT_DIM = 384


@dataclass(frozen=True, slots=True)
class TextEmbedding:
    """One encoded prompt, float32.

    tokens: (TEXT_TOKENS, 384), zero where mask is zero; mask: (TEXT_TOKENS,) of 0 and 1; pooled: (384,), unit length.
    """

    tokens: NDArray[np.float32]
    mask: NDArray[np.float32]
    pooled: NDArray[np.float32]


class TextEncoder:
    """Loads `encoder.onnx` and `tokenizer.json` from a folder; `encode` is deterministic and needs no network."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=TEXT_TOKENS)
        self._session = open_session(folder / "encoder.onnx", threads=threads)

    def encode(self, prompt: str) -> TextEmbedding:
        """Encode one prompt; text beyond TEXT_TOKENS word pieces is cut off."""
        ids = np.asarray([self._tokenizer.encode(prompt.lower()).ids], dtype=np.int64)  # (1, L)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        found, pooled = self._session.run(None, feed)  # (1, L, 384), (1, 384)
        tokens = np.zeros((TEXT_TOKENS, TEXT_DIM), dtype=np.float32)
        mask = np.zeros(TEXT_TOKENS, dtype=np.float32)
        tokens[: ids.shape[1]] = found[0]
        mask[: ids.shape[1]] = 1.0
        return TextEmbedding(tokens=tokens, mask=mask, pooled=pooled[0])
