"""Rendered data sets on disk: clips, ground truth and the reader's slots as plain .npy files, memory-mapped on reading.

Each clip has WORDINGS captions. Their slots come from the very encoder file that inference uses, so its int8 rounding
is trained on.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adaptivegen.errors import InvalidRequest
from core_cloud.models.reader import SLOTS, Reader
from training.captions import sample_caption
from training.embedding import embed, read_slots
from training.grammar import MAX_OBJECTS, OBJECTS_NAMED, Scene, sample_scene
from training.world import SceneBatch, clip_times, layouts, render, scene_batch

LOW_FRAMES, LOW_SIZE = 8, 48
HIGH_FRAMES = 24
WORDINGS = 2  # captions per clip
OBJECTS = (1, 1, 1, 1, 2, 2, 2, 3, 3)  # per clip, to choose from; the more, the smaller and harder they are
LATER = 0.1  # share of clips, the last of a set, that begin later; they are taught with their first half given
CELL = 2  # pixels along each side of a cell of the stored coverage
SCENE_FIELDS = tuple(field.name for field in fields(SceneBatch))
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Dataset:
    """N rendered scenes with WORDINGS captions each; the tensors are memory maps, or on a device after `to`.

    clips (N, 8, 48, 48, 3) uint8; coverage (N, 3, 8, 24, 24) uint8, the objects' visible share of every cell; slots
    (N, WORDINGS, SLOTS, 192) float16.
    """

    scenes: SceneBatch
    captions: list[list[str]]
    clips: Tensor
    coverage: Tensor
    slots: Tensor

    def __len__(self) -> int:
        return len(self.captions)

    def to(self, device: str) -> "Dataset":
        """The same with everything in the memory of a device."""
        parts = (part.to(device) for part in (self.clips, self.coverage, self.slots))
        return Dataset(self.scenes.to(device), self.captions, *parts)

    def text(self, rows: Tensor, wordings: Tensor) -> Tensor:
        """Slots (B, SLOTS, 192) of these rows and wordings, float32."""
        return self.slots[rows, wordings].float()

    def frames(self, rows: Tensor) -> Tensor:
        """Low-resolution clips (B, 8, 48, 48, 3) in [-1, 1]."""
        return to_unit(self.clips[rows])

    def layouts(self, rows: Tensor) -> Tensor:
        """Where the things are, (B, SLOTS, 8, LAYOUT_VALUES), as `core_cloud.models.layout` says."""
        scenes = self.scenes.take(rows)
        return layouts(scenes, clip_times(LOW_FRAMES, scenes.jitter.device.type))

    def later(self, rows: Tensor) -> Tensor:
        """Which of these rows begin later, (B,) bool."""
        return self.scenes.begin[rows] > 0

    def shares(self, rows: Tensor) -> Tensor:
        """Coverage (B, 3, 8, 24, 24) in [0, 1]."""
        return self.coverage[rows].float() / 255.0


def to_unit(clip: Tensor) -> Tensor:
    """uint8 in 0..255 -> float32 in [-1, 1]."""
    return clip.float() / 127.5 - 1.0


def draw_scenes(
    count: int, seed: int, *, novel: bool | None = False, objects: Sequence[int] = OBJECTS_NAMED
) -> list[Scene]:
    """Seeded scenes; see `sample_scene` for novel, and `objects` for its counts."""
    rng = random.Random(seed)
    return [sample_scene(rng, counts=objects, novel=novel) for _ in range(count)]


def beginnings(count: int, generator: torch.Generator) -> Tensor:
    """When clips that go on with others begin, (count,): half of them in their middle, where extensions do."""
    anywhere, which = torch.rand(2, count, generator=generator, device=generator.device)
    return torch.where(which < 0.5, 0.5, 0.5 * (1.0 - anywhere))


def with_later(scenes: SceneBatch, share: float, seed: int) -> SceneBatch:
    """The same scenes, of which the last `share` begin later."""
    late = int(share * len(scenes))
    begin = scenes.begin.clone()
    begin[len(scenes) - late :] = beginnings(late, torch.Generator().manual_seed(seed)).to(begin.device)
    return replace(scenes, begin=begin)


def read_captions(captions: list[list[str]], reader: Reader, text_folder: Path, processes: int) -> NDArray[np.float16]:
    """Slots (N, WORDINGS, SLOTS, 192) of N times WORDINGS captions."""
    texts = embed([caption for wordings in captions for caption in wordings], text_folder, processes)
    slots = read_slots(reader, texts)
    kept: NDArray[np.float16] = slots.view(len(captions), WORDINGS, SLOTS, -1).half().numpy()
    return kept


def render_low(scenes: SceneBatch, folder: Path, progress: Progress) -> None:
    """Write clips.npy and coverage.npy."""
    count, cells = len(scenes), LOW_SIZE // CELL
    shape = (count, LOW_FRAMES, LOW_SIZE, LOW_SIZE, 3)
    clips = np.lib.format.open_memmap(folder / "clips.npy", mode="w+", dtype=np.uint8, shape=shape)
    shape = (count, MAX_OBJECTS, LOW_FRAMES, cells, cells)
    coverage = np.lib.format.open_memmap(folder / "coverage.npy", mode="w+", dtype=np.uint8, shape=shape)
    for start in range(0, count, 256):
        rows = slice(start, min(start + 256, count))
        made = render(scenes.take(rows), LOW_FRAMES, LOW_SIZE, LOW_SIZE)
        clips[rows] = made.clip.cpu().numpy()
        small = F.avg_pool2d(made.masks.flatten(1, 2), CELL).view(-1, *shape[1:])
        coverage[rows] = (small * 255).round().to(torch.uint8).cpu().numpy()
        progress("clips", rows.stop / count)
    clips.flush()
    coverage.flush()


def save_scenes(scenes: SceneBatch, folder: Path) -> None:
    """Write scenes.npz."""
    on_cpu = scenes.to("cpu")
    np.savez(folder / "scenes.npz", **{name: getattr(on_cpu, name) for name in SCENE_FIELDS})


def load_scenes(folder: Path) -> SceneBatch:
    """Read scenes.npz; raises InvalidRequest when it is of another version."""
    kept = np.load(folder / "scenes.npz")
    missing = set(SCENE_FIELDS) - set(kept.files)
    if missing:
        whole = f"a data set of this version, with {', '.join(sorted(missing))}; or another folder"
        raise InvalidRequest.field("data", "scenes.npz", whole)
    return SceneBatch(*(torch.from_numpy(kept[name]) for name in SCENE_FIELDS))


def build(
    folder: Path,
    count: int,
    seed: int,
    reader: Reader,
    text_folder: Path,
    progress: Progress,
    *,
    device: str = "cpu",
    processes: int = 2,
) -> None:
    """Render `count` scenes and read their captions into the folder; complete once `captions.json` exists."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw_scenes(count, seed, objects=OBJECTS)
    rng = random.Random(seed + 1)
    captions = [[sample_caption(scene, rng) for _ in range(WORDINGS)] for scene in drawn]
    scenes = with_later(scene_batch(drawn, seed, device), LATER, seed)
    render_low(scenes, folder, progress)
    save_scenes(scenes, folder)
    np.save(folder / "slots.npy", read_captions(captions, reader, text_folder, processes))
    (folder / "captions.json").write_text(json.dumps(captions))


def load(folder: Path) -> Dataset:
    """Open a data set that `build` wrote; raises InvalidRequest when it is of another version."""
    scenes = load_scenes(folder)
    # Copy-on-write maps, because torch wants writable memory; nothing writes to them.
    maps = (torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in ("clips", "coverage", "slots"))
    return Dataset(
        scenes,
        json.loads((folder / "captions.json").read_text()),
        *maps,
    )
