"""Embeds many captions with the encoder that inference uses, one at a time and in several processes.

One at a time, because the int8 encoder scales its activations by call: a batch would give other numbers than the
single prompts of inference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from torch import Tensor

from adaptivegen.models.slots import TEXT_TOKENS
from adaptivegen.models.tokens import TEXT_DIM, TokenEncoder
from core_cloud.models.reader import Reader


@dataclass(frozen=True, slots=True)
class Embedded:
    """Token embeddings of N captions end to end: tokens (total length, 384) float16, lengths (N,), pooled (N, 384)."""

    tokens: NDArray[np.float16]
    lengths: NDArray[np.int64]
    pooled: NDArray[np.float16]

    def padded(self, rows: NDArray[np.int64], device: str = "cpu") -> tuple[Tensor, Tensor]:
        """Tokens (B, L, 384) float32 and mask (B, L) of these captions, L the longest of them."""
        longest = int(self.lengths[rows].max())
        ends = self.lengths.cumsum()
        tokens = np.zeros((len(rows), longest, TEXT_DIM), dtype=np.float32)
        mask = np.zeros((len(rows), longest), dtype=np.float32)
        for place, row in enumerate(rows):
            length = self.lengths[row]
            tokens[place, :length] = self.tokens[ends[row] - length : ends[row]]
            mask[place, :length] = 1.0
        return torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)


def embed(captions: Sequence[str], folder: Path, processes: int) -> Embedded:
    """Embed the captions with the encoder in `folder`."""
    parts = [captions[start : start + 1000] for start in range(0, len(captions), 1000)]
    made = Parallel(n_jobs=processes)(delayed(_embed_part)(part, folder) for part in parts)
    return Embedded(*(np.concatenate([part[field] for part in made]) for field in range(3)))


def _embed_part(captions: Sequence[str], folder: Path) -> tuple[NDArray[np.float16], ...]:
    encoder = TokenEncoder(folder, threads=1, limit=TEXT_TOKENS)
    texts = [encoder.encode(caption) for caption in captions]
    lengths = np.asarray([len(text.tokens) for text in texts])
    tokens = np.concatenate([text.tokens for text in texts])
    return tokens.astype(np.float16), lengths, np.stack([text.pooled for text in texts]).astype(np.float16)


@torch.no_grad()
def read_slots(reader: Reader, texts: Embedded) -> Tensor:
    """Slots (N, SLOTS, 192) of all captions."""
    count = len(texts.lengths)
    parts = (np.arange(start, min(start + 500, count)) for start in range(0, count, 500))
    return torch.cat([reader(*texts.padded(rows)) for rows in parts])
