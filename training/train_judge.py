"""Trains the judge on renders, and measures it on renders it has not seen."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data import draw_scenes, to_unit, with_later
from training.grammar import COLOURS, MAX_OBJECTS, OBJECT_ATTRIBUTES, SCENE_ATTRIBUTES
from training.judge import FRAMES, SIDE, Judge, Reading
from training.world import SceneBatch, clip_times, render, scene_batch, trajectory

SEED = 900_001
HELD_OUT_SEED = 910_001


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How the judge is trained: rendered clips, passes over them, share of later clips, batch, rate at the start."""

    clips: int = 13_000
    passes: int = 5
    later: float = 0.1
    batch: int = 32
    rate: float = 2e-3
    weight_decay: float = 0.02
    seed: int = SEED
    device: str = "cpu"
    bfloat16: bool = True


@dataclass(frozen=True, slots=True)
class Truth:
    """What the judge should say: present (B, 12), things (B, 12, 5) with -1 where absent, tracks, setting."""

    present: Tensor
    things: Tensor
    setting: Tensor
    tracks: Tensor

    def take(self, rows: Tensor) -> "Truth":
        """These rows."""
        return Truth(self.present[rows], self.things[rows], self.setting[rows], self.tracks[rows])


def truth(scenes: SceneBatch) -> Truth:
    """The ground truth keyed by colour."""
    path = trajectory(scenes, clip_times(FRAMES, scenes.jitter.device.type))
    where = torch.stack([path.x, path.y, path.radius], dim=-1)  # (B, K, T, 3)
    count, device = len(scenes), scenes.jitter.device
    things = torch.full((count, len(COLOURS), 5), -1, dtype=torch.long, device=device)
    tracks = torch.zeros(count, len(COLOURS), FRAMES, 3, device=device)
    row, slot = (scenes.things[:, :, 0] >= 0).nonzero(as_tuple=True)
    colour = scenes.things[row, slot, 1]
    things[row, colour] = scenes.things[row, slot]
    tracks[row, colour] = where[row, slot]
    return Truth(things[..., 0] >= 0, things, scenes.setting, tracks)


def rendered(
    count: int, seed: int, *, novel: bool | None = None, later: float = 0.0, device: str = "cpu"
) -> tuple[Tensor, SceneBatch]:
    """Clips (count, 8, 64, 64, 3) uint8 of seeded scenes, the last share `later` of which begin later."""
    scenes = with_later(scene_batch(draw_scenes(count, seed, novel=novel), seed, device), later, seed)
    starts = range(0, count, 256)
    parts = [render(scenes.take(slice(i, min(i + 256, count))), FRAMES, SIDE, SIDE).clip for i in starts]
    return torch.cat(parts), scenes


def spoiled(clip: Tensor, generator: torch.Generator) -> Tensor:
    """Noise, and for half the batch a blur, so that small faults of a generator do not blind the judge."""
    blurred = F.avg_pool2d(clip.flatten(0, 1).permute(0, 3, 1, 2), 3, stride=1, padding=1)
    blurred = blurred.permute(0, 2, 3, 1).reshape(clip.shape)
    pick = torch.rand(len(clip), 1, 1, 1, 1, generator=generator, device=clip.device)
    out = torch.where(pick < 0.35, blurred, clip)
    return out + 0.1 * pick * torch.randn(clip.shape, generator=generator, device=clip.device)


COLUMNS = (0, 2, 3, 4)  # of the attributes that the judge names once it has found a colour


def picked(by_colour: Tensor, colours: Tensor) -> Tensor:
    """Rows (B, K, ...) of values (B, 12, ...) by colour."""
    index = colours.view(*colours.shape, *([1] * (by_colour.ndim - 2)))
    return by_colour.gather(1, index.expand(-1, -1, *by_colour.shape[2:]))


def true_colours(present: Tensor) -> Tensor:
    """The colours (B, MAX_OBJECTS) to look at while training: those present (B, 12), then any."""
    return present.float().topk(MAX_OBJECTS, dim=1).indices


def judging_loss(reading: Reading, wanted: Truth) -> Tensor:
    """Cross-entropies of everything that is there, and the tracks' absolute error."""
    there = wanted.present
    loss = 6.0 * F.binary_cross_entropy_with_logits(reading.present.float(), there.float())
    things = picked(wanted.things, reading.colours)  # (B, K, 5)
    real = things[..., 0] >= 0
    for logits, column in zip(reading.objects, COLUMNS, strict=True):
        loss = loss + F.cross_entropy(logits[real].float(), things[..., column][real])
    for index, logits in enumerate(reading.setting):
        loss = loss + F.cross_entropy(logits.float(), wanted.setting[:, index])
    return loss + 10.0 * (reading.tracks[there].float() - wanted.tracks[there]).abs().mean()


def train_judge(path: Path, settings: JudgeSettings, report: Callable[[float, float], None]) -> Judge:
    """Fit on renders and save to `path`; report(share done, loss)."""
    s = settings
    torch.manual_seed(s.seed)
    clips, scenes = rendered(s.clips, s.seed, later=s.later, device=s.device)
    wanted = truth(scenes)
    model = Judge().to(s.device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=s.rate, betas=(0.9, 0.98), weight_decay=s.weight_decay)
    generator = torch.Generator(s.device).manual_seed(s.seed)
    per_pass, done = s.clips // s.batch, 0
    for index in range(s.passes):
        order = torch.randperm(s.clips, generator=torch.Generator().manual_seed(s.seed + index)).to(s.device)
        for rows in order[: per_pass * s.batch].view(-1, s.batch):
            share = done / (per_pass * s.passes)
            optimiser.param_groups[0]["lr"] = s.rate * min(1.0, (done + 1) / 100) * min(1.0, 1.6 * (1 - share) + 0.002)
            clip = spoiled(to_unit(clips[rows]), generator)
            with torch.autocast(s.device.split(":")[0], dtype=torch.bfloat16, enabled=s.bfloat16):
                asked = wanted.take(rows)
                reading = model(clip, true_colours(asked.present))
            loss = judging_loss(reading, asked)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            done += 1
            if done % 20 == 0:
                report(done / (per_pass * s.passes), loss.item())
    torch.save(model.state_dict(), path)
    return model.eval()


def load_judge(path: Path) -> Judge:
    """A saved judge in evaluation mode."""
    model = Judge()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


@torch.no_grad()
def judge_accuracy(model: Judge, count: int, seed: int = HELD_OUT_SEED) -> dict[str, tuple[int, int]]:
    """Hits and trials per attribute on renders that the judge has not seen, and of `track_3%` and `count`.

    An object counts for an attribute whatever the judge says of its presence, because the colour is given; `colour`
    counts scenes whose set of colours is read exactly.
    """
    clips, scenes = rendered(count, seed)
    hits: dict[str, int] = {}
    trials: dict[str, int] = {}

    def add(name: str, right: Tensor) -> None:
        hits[name] = hits.get(name, 0) + int(right.sum())
        trials[name] = trials.get(name, 0) + right.numel()

    for start in range(0, count, 128):
        rows = torch.arange(start, min(start + 128, count))
        wanted = truth(scenes.take(rows))
        there = wanted.present
        reading = model(to_unit(clips[rows]), true_colours(there))
        add("colour", ((reading.present > 0) == there).all(1))
        things = picked(wanted.things, reading.colours)
        real = things[..., 0] >= 0
        for logits, column in zip(reading.objects, COLUMNS, strict=True):
            add(OBJECT_ATTRIBUTES[column], logits.argmax(-1)[real] == things[..., column][real])
        for index, logits in enumerate(reading.setting):
            add(SCENE_ATTRIBUTES[index], logits.argmax(-1) == wanted.setting[:, index])
        error = (reading.tracks - wanted.tracks)[there][..., :2].norm(dim=-1).mean(-1)
        add("track_3%", error < 0.03)
        add("count", (reading.present > 0).sum(1) == there.sum(1))
    return {name: (hits[name], trials[name]) for name in hits}
