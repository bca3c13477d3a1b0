"""Measures what the exported models make: attribute accuracy with 95 % intervals, direction by tracking, refine.

Works through the very `Generator` that the services use, on scenes whose seeds the training never saw.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adaptivegen.models.base import Clip, GenerationInput, Generator
from training.data import draw_scenes
from training.grammar import Attributes
from training.recogniser import JUDGED, NAMES, Recogniser, recognise, rendered
from training.world import PALETTE

EVALUATION_SEED = 700_001
STRAIGHT = ("left", "right", "up", "down")


@dataclass(frozen=True, slots=True)
class Share:
    """A proportion with its 95 % Wilson interval."""

    value: float
    low: float
    high: float
    n: int


def wilson(hits: int, n: int) -> Share:
    """Wilson's score interval at 95 %."""
    if n == 0:
        return Share(0.0, 0.0, 1.0, 0)
    z, p = 1.96, hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Share(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), n)


def evaluation_scenes(count: int) -> tuple[list[Attributes], list[str]]:
    """Scenes and captions of the evaluation."""
    return draw_scenes(count, EVALUATION_SEED)


def quiet(*_: object) -> None:
    """An on_step that ignores its report."""


def make_clips(
    model: Generator,
    prompts: Sequence[str],
    *,
    size: int,
    steps: int,
    guidance: float,
    starts: Sequence[Clip] | None = None,
    strength: float | None = None,
    report: Callable[[int], None] = quiet,
) -> list[Clip]:
    """One clip per prompt, seeds 0, 1, 2, ..."""
    clips = []
    for index, prompt in enumerate(prompts):
        request = GenerationInput(prompt, index, size, size, 24, steps, guidance)
        start = None if starts is None else starts[index]
        clips.append(model.generate(request, start=start, strength=strength, on_step=quiet, should_stop=lambda: False))
        report(index + 1)
    return clips


def attribute_accuracy(judge: Recogniser, clips: Sequence[Clip], scenes: Sequence[Attributes]) -> dict[str, Share]:
    """Share of clips whose shape, colour, motion and background the judge reads as asked."""
    truth = np.asarray([scene.indices() for scene in scenes])
    seen = judged(judge, clips)
    return {
        name: wilson(int((seen[:, NAMES.index(name)] == truth[:, NAMES.index(name)]).sum()), len(clips))
        for name in JUDGED
    }


def judged(judge: Recogniser, clips: Sequence[Clip]) -> NDArray[np.int64]:
    """Labels (N, 5) the judge reads, clip by clip."""
    return np.concatenate([recognise(judge, torch.from_numpy(clip)[None]) for clip in clips])


def judge_accuracy(judge: Recogniser, count: int = 512) -> dict[str, Share]:
    """The judge on held-out renders: the ceiling of every figure it gives."""
    clips, labels = rendered(count, EVALUATION_SEED + 1)
    seen = np.concatenate([recognise_renders(judge, clips[i : i + 64]) for i in range(0, count, 64)])
    truth = labels.numpy()
    return {
        name: wilson(int((seen[:, NAMES.index(name)] == truth[:, NAMES.index(name)]).sum()), count) for name in JUDGED
    }


@torch.no_grad()
def recognise_renders(judge: Recogniser, clips: torch.Tensor) -> NDArray[np.int64]:
    """Labels of renders that already have the judge's size."""
    return torch.stack([o.argmax(1) for o in judge(clips.float() / 127.5 - 1.0)], dim=1).numpy()


def tracked_direction(clip: Clip, colour: int) -> str:
    """Direction of the net movement of the pixels near the colour that are not so in every frame."""
    near = np.linalg.norm(clip / 255.0 - PALETTE[colour].numpy() * 0.92, axis=-1) < 0.3  # (T, H, W)
    moving = near & ~near.all(axis=0)
    rows, columns = np.mgrid[0 : clip.shape[1], 0 : clip.shape[2]]
    third = max(1, len(clip) // 4)

    def centre(part: NDArray[np.bool_]) -> tuple[float, float]:
        weight = max(int(part.sum()), 1)
        return float((part * rows).sum() / weight), float((part * columns).sum() / weight)

    (y0, x0), (y1, x1) = centre(moving[:third]), centre(moving[-third:])
    if abs(x1 - x0) > abs(y1 - y0):
        return "left" if x1 < x0 else "right"
    return "up" if y1 < y0 else "down"


def direction_accuracy(clips: Sequence[Clip], scenes: Sequence[Attributes]) -> Share:
    """Share of the straight motions whose tracked direction is the asked one; needs no recogniser."""
    asked = [(clip, scene) for clip, scene in zip(clips, scenes, strict=True) if scene.motion in STRAIGHT]
    hits = sum(tracked_direction(clip, scene.indices()[1]) == scene.motion for clip, scene in asked)
    return wilson(hits, len(asked))


def agreement(judge: Recogniser, drafts: Sequence[Clip], finals: Sequence[Clip]) -> dict[str, Share]:
    """Share of pairs in which the judge reads the same attribute in the draft and in the final."""
    before, after = judged(judge, drafts), judged(judge, finals)
    return {
        name: wilson(int((before[:, NAMES.index(name)] == after[:, NAMES.index(name)]).sum()), len(drafts))
        for name in JUDGED
    }


def mean_opinion(accuracy: dict[str, Share], side: int) -> Share:
    """Q on the scale 1..5: 1 + 4 A S, A the mean attribute accuracy, S = log2(side) / log2(256) for sharpness.

    An assumption until people's ratings replace it; the interval propagates the mean interval of the accuracies.
    """
    sharp = math.log2(side) / 8.0
    n = min(share.n for share in accuracy.values())

    def scale(values: list[float]) -> float:
        return 1.0 + 4.0 * sharp * sum(values) / len(values)

    parts = list(accuracy.values())
    return Share(scale([p.value for p in parts]), scale([p.low for p in parts]), scale([p.high for p in parts]), n)


def contact_sheet(rows: Sequence[Sequence[Clip]], instants: int, side: int) -> NDArray[np.uint8]:
    """One image: each row of clips side by side, `instants` frames each, shrunk to side x side by pixel skipping."""
    lines = []
    for clips in rows:
        tiles = []
        for clip in clips:
            picks = np.linspace(0, len(clip) - 1, instants).round().astype(int)
            step = clip.shape[1] // side
            tiles += [clip[pick, step // 2 :: step, step // 2 :: step] for pick in picks]
        lines.append(np.concatenate(tiles, axis=1))
    return np.concatenate(lines)
