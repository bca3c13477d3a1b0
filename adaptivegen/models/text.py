"""Text encoder: a prompt becomes token embeddings and one pooled vector, by all-MiniLM-L6-v2 in ONNX Runtime.

The token embeddings condition the Pocket models (the pooled vector cannot tell
left from right); the pooled vector modulates them and indexes near-hits.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptivegen.models.tokens import TEXT_DIM, TokenEncoder

TEXT_TOKENS = 32  # tokens that condition a model; what a longer prompt says later is not seen by it


@dataclass(frozen=True, slots=True)
class TextEmbedding:
    """One encoded prompt, float32.

    tokens: (TEXT_TOKENS, 384), zero where mask is zero; mask: (TEXT_TOKENS,) of 0 and 1; pooled: (384,), unit length.
    """

    tokens: NDArray[np.float32]
    mask: NDArray[np.float32]
    pooled: NDArray[np.float32]


class TextEncoder:
    """The token encoder of a folder, its embeddings padded to TEXT_TOKENS."""

    def __init__(self, folder: Path, *, threads: int) -> None:
        self._encoder = TokenEncoder(folder, threads=threads, limit=TEXT_TOKENS)

    def encode(self, prompt: str) -> TextEmbedding:
        """Encode one prompt; text beyond TEXT_TOKENS word pieces is cut off."""
        found = self._encoder.encode(prompt)
        length = len(found.tokens)
        tokens = np.zeros((TEXT_TOKENS, TEXT_DIM), dtype=np.float32)
        mask = np.zeros(TEXT_TOKENS, dtype=np.float32)
        tokens[:length] = found.tokens
        mask[:length] = 1.0
        return TextEmbedding(tokens=tokens, mask=mask, pooled=found.pooled)
