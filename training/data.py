"""Rendered data sets on disk: clips, ground truth and text embeddings as plain .npy files, memory-mapped on reading.

The text embeddings come from the very encoder file that inference uses, so its int8 rounding is trained on.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptivegen.models.text import TEXT_DIM, TEXT_TOKENS, TextEncoder
from training.grammar import Attributes, sample_attributes, sample_caption
from training.world import SceneBatch, render, scene_batch

LOW_FRAMES, LOW_SIZE = 8, 32
HIGH_FRAMES = 24
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Dataset:
    """N rendered scenes with one caption each; arrays are memory maps.

    clips (N, 8, 32, 32, 3) uint8; tokens (N, 32, 384) float16; lengths (N,) int64; pooled (N, 384) float16.
    """

    scenes: SceneBatch
    captions: list[str]
    clips: NDArray[np.uint8]
    tokens: NDArray[np.float16]
    lengths: NDArray[np.int64]
    pooled: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.captions)

    def text(self, rows: NDArray[np.int64], device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
        """Token embeddings (B, 32, 384), mask (B, 32), pooled (B, 384) of these rows, float32."""
        tokens = torch.from_numpy(self.tokens[rows].astype(np.float32))
        mask = torch.arange(TEXT_TOKENS)[None, :] < torch.from_numpy(self.lengths[rows])[:, None]
        pooled = torch.from_numpy(self.pooled[rows].astype(np.float32))
        return tokens.to(device), mask.float().to(device), pooled.to(device)

    def frames(self, rows: NDArray[np.int64], device: str = "cpu") -> Tensor:
        """Low-resolution clips (B, 8, 32, 32, 3) in [-1, 1]."""
        return to_unit(torch.from_numpy(self.clips[rows]).to(device))


def to_unit(clip: Tensor) -> Tensor:
    """uint8 in 0..255 -> float32 in [-1, 1]."""
    return clip.float() / 127.5 - 1.0


def draw_scenes(count: int, seed: int) -> tuple[list[Attributes], list[str]]:
    """Seeded scenes and one caption each."""
    rng = random.Random(seed)
    scenes = [sample_attributes(rng) for _ in range(count)]
    return scenes, [sample_caption(scene, rng) for scene in scenes]


def embed_captions(captions: list[str], encoder: TextEncoder, folder: Path, progress: Progress) -> None:
    """Write tokens.npy, lengths.npy and pooled.npy for the captions."""
    count = len(captions)
    tokens = np.lib.format.open_memmap(
        folder / "tokens.npy", mode="w+", dtype=np.float16, shape=(count, TEXT_TOKENS, TEXT_DIM)
    )
    pooled = np.zeros((count, TEXT_DIM), dtype=np.float16)
    lengths = np.zeros(count, dtype=np.int64)
    same: dict[str, list[int]] = defaultdict(list)
    for row, caption in enumerate(captions):
        same[caption].append(row)
    for done, (caption, rows) in enumerate(same.items()):
        text = encoder.encode(caption)
        tokens[rows], pooled[rows], lengths[rows] = text.tokens, text.pooled, int(text.mask.sum())
        if done % 500 == 0:
            progress("captions", done / len(same))
    np.save(folder / "pooled.npy", pooled)
    np.save(folder / "lengths.npy", lengths)


def build(folder: Path, count: int, seed: int, encoder: TextEncoder, progress: Progress, device: str = "cpu") -> None:
    """Render `count` scenes and embed their captions into the folder; complete once `captions.json` exists."""
    folder.mkdir(parents=True, exist_ok=True)
    attributes, captions = draw_scenes(count, seed)
    scenes = scene_batch(attributes, seed, device)
    shape = (count, LOW_FRAMES, LOW_SIZE, LOW_SIZE, 3)
    clips = np.lib.format.open_memmap(folder / "clips.npy", mode="w+", dtype=np.uint8, shape=shape)
    for start in range(0, count, 512):
        rows = slice(start, start + 512)
        clips[rows] = render(scenes.take(rows), LOW_FRAMES, LOW_SIZE, LOW_SIZE).cpu().numpy()
        progress("clips", start / count)
    np.save(folder / "labels.npy", scenes.labels.cpu().numpy())
    np.save(folder / "jitter.npy", scenes.jitter.cpu().numpy())
    embed_captions(captions, encoder, folder, progress)
    (folder / "captions.json").write_text(json.dumps(captions))


def load(folder: Path) -> Dataset:
    """Open a data set that `build` wrote."""
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    jitter = torch.from_numpy(np.load(folder / "jitter.npy"))
    return Dataset(
        scenes=SceneBatch(labels, jitter),
        captions=json.loads((folder / "captions.json").read_text()),
        clips=np.load(folder / "clips.npy", mmap_mode="r"),
        tokens=np.load(folder / "tokens.npy", mmap_mode="r"),
        lengths=np.load(folder / "lengths.npy"),
        pooled=np.load(folder / "pooled.npy"),
    )
