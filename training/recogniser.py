"""A small convolutional recogniser of a scene's attributes, the judge of generated clips.

Trained on rendered clips with seeds of their own; its accuracy on held-out renders is reported beside every figure it
gives, since a judge that errs on real clips bounds what it can say about made ones.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training.data import draw_scenes, to_unit
from training.grammar import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES
from training.world import render, scene_batch

FRAMES, SIDE = 4, 64
CLASSES = (len(SHAPES), len(COLOURS), len(SIZES), len(MOTIONS), len(BACKGROUNDS))
NAMES = ("shape", "colour", "size", "motion", "background")
JUDGED = ("shape", "colour", "motion", "background")


class Recogniser(nn.Module):
    """(B, 4, 64, 64, 3) in [-1, 1] -> one row of logits per attribute."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.place = nn.Linear(128 * 16, 64)
        self.trunk = nn.Sequential(nn.Linear(FRAMES * 64 + 256, 256), nn.SiLU())
        self.heads = nn.ModuleList(nn.Linear(256, count) for count in CLASSES)

    def forward(self, clip: Tensor) -> list[Tensor]:
        """Logits by attribute, in the order of NAMES."""
        frames = clip.flatten(0, 1).permute(0, 3, 1, 2)  # (B*4, 3, 64, 64)
        maps = self.features(frames)  # (B*4, 128, 4, 4)
        places = self.place(maps.flatten(1)).view(clip.shape[0], -1)  # (B, 4*64)
        pooled = maps.view(clip.shape[0], FRAMES, 128, 16)
        seen = torch.cat([pooled.amax(dim=(1, 3)), pooled.mean(dim=(1, 3)), places], dim=1)
        h = self.trunk(seen)
        return [head(h) for head in self.heads]


def rendered(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Clips (count, 4, 64, 64, 3) uint8 and labels (count, 5) of seeded scenes."""
    scenes = scene_batch(draw_scenes(count, seed)[0], seed)
    parts = [render(scenes.take(slice(i, i + 256)), FRAMES, SIDE, SIDE) for i in range(0, count, 256)]
    return torch.cat(parts), scenes.labels


def _spoiled(clip: Tensor, generator: torch.Generator) -> Tensor:
    """Noise, and for half the batch a blur, so that small faults of a generator do not blind the judge."""
    blurred = F.avg_pool2d(clip.flatten(0, 1).permute(0, 3, 1, 2), 3, stride=1, padding=1)
    blurred = blurred.permute(0, 2, 3, 1).view_as(clip)
    pick = torch.rand(len(clip), 1, 1, 1, 1, generator=generator)
    out = torch.where(pick < 0.5, blurred, clip)
    return out + 0.15 * pick * torch.randn(clip.shape, generator=generator)


def train_recogniser(
    path: Path, *, clips: int = 6000, epochs: int = 8, seed: int = 900_001, report: Callable[[int, float], None]
) -> Recogniser:
    """Fit on `clips` renders and save to `path`."""
    frames, labels = rendered(clips, seed)
    model = Recogniser()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    total, done = epochs * (clips // 64), 0
    for epoch in range(epochs):
        order = torch.randperm(clips, generator=generator)
        for rows in order[: clips // 64 * 64].view(-1, 64):
            optimiser.param_groups[0]["lr"] = 2e-3 * (1 - done / total) + 1e-5
            out = model(_spoiled(to_unit(frames[rows]), generator))
            loss = sum((F.cross_entropy(o, labels[rows, i]) for i, o in enumerate(out)), torch.zeros(()))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            done += 1
        report(epoch, float(loss.item()))
    torch.save(model.state_dict(), path)
    return model.eval()


def load_recogniser(path: Path) -> Recogniser:
    """A saved recogniser in evaluation mode."""
    model = Recogniser()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


@torch.no_grad()
def recognise(model: Recogniser, clips: Tensor) -> NDArray[np.int64]:
    """Labels (B, 5) of clips (B, T, H, W, 3) uint8; T a multiple of 4, H and W of 64."""
    step = clips.shape[1] // FRAMES
    # The middle instants of the four quarters, as the renderer samples them.
    picked = [clips[:, i * step + step // 2 - 1 : i * step + step // 2 + 1].float().mean(1) for i in range(FRAMES)]
    frames = torch.stack(picked, 1).flatten(0, 1).permute(0, 3, 1, 2)  # (B*4, 3, H, W)
    small = F.adaptive_avg_pool2d(frames, SIDE).permute(0, 2, 3, 1).view(len(clips), FRAMES, SIDE, SIDE, 3)
    logits = model(small / 127.5 - 1.0)
    return torch.stack([o.argmax(1) for o in logits], dim=1).numpy()
