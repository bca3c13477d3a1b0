"""Word pieces of a prompt and their embeddings, by all-MiniLM-L6-v2 in ONNX Runtime.

Decides tokenisation and truncation.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from adaptivegen.models.runtime import open_session

TEXT_DIM = 384
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenEmbedding:
    """One encoded prompt, float32: tokens (L, 384), pooled (384,) of unit length."""

    tokens: Floats
    pooled: Floats


class TokenEncoder:
    """Loads `encoder.onnx` and `tokenizer.json` from a folder; `encode` is deterministic and needs no network.

    limit: word pieces that are seen; what a longer prompt says later is cut off.
    """

    def __init__(self, folder: Path, *, threads: int, limit: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length=limit)
        self._session = open_session(folder / "encoder.onnx", threads=threads)

    def encode(self, prompt: str) -> TokenEmbedding:
        """Encode one prompt."""
        ids = np.asarray([self._tokenizer.encode(prompt.lower()).ids], dtype=np.int64)  # (1, L)
        tokens, pooled = self._session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return TokenEmbedding(tokens=tokens[0], pooled=pooled[0])
