"""Trains the upsamplers: clean renders are the target, noised, blurred or base-made low-resolution clips the input.

What the base model makes is not what the renderer draws, so over half of the inputs are clips that were noised to some
t and brought back by the base in two steps: the upsampler learns to mend the base's own faults.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core_cloud.models.convolution import FrameDoubler, SharpenerParams
from core_cloud.models.enlarge import (
    HIGH,
    LOW,
    SpaceTimeUpsampler,
    UpsamplerParams,
)
from core_cloud.models.video import BaseTransformer, Conditions
from training.data import HIGH_FRAMES, Dataset, to_unit
from training.fit import FitSettings, Report, Steps, averaged, batch_rows, fit, step_generator
from training.flow import noised
from training.world import render

MAX_LEVEL = 0.3  # standard deviation of the noise added to the input, on the [-1, 1] scale
CROP = 24  # low-resolution pixels along each side of a training crop
STRIDE = 3  # crops start at multiples of this, where low and high pixels meet
SHARE_MADE = 0.6  # of the inputs that the base made
DOUBLER_CROP = 48


@dataclass(frozen=True, slots=True)
class UpsamplerSettings:
    """A run of an upsampler: steps, batch in crops, rate at the start."""

    steps: Steps
    batch: int = 8
    rate: float = 1e-3
    device: str = "cpu"
    seed: int = 0


def render_high(data: Dataset, count: int, path: Path) -> Tensor:
    """Frames of the first `count` scenes at full size, (count, 24, 128, 128, 3) uint8, kept on disk."""
    if not path.exists() or len(np.load(path, mmap_mode="r")) < count:
        scratch = path.with_suffix(".part.npy")
        shape = (count, HIGH_FRAMES, HIGH, HIGH, 3)
        high = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.uint8, shape=shape)
        for start in range(0, count, 16):
            rows = slice(start, min(start + 16, count))
            high[rows] = render(data.scenes.take(rows), HIGH_FRAMES, HIGH, HIGH).clip.cpu().numpy()
        high.flush()
        scratch.replace(path)
    return torch.from_numpy(np.load(path, mmap_mode="c")[:count])


@torch.no_grad()
def reconstructions(base: BaseTransformer, data: Dataset, count: int, seed: int, device: str = "cpu") -> Tensor:
    """What the base makes of the first `count` clips, noised to t in [0.3, 0.85]: (count, 8, 48, 48, 3) uint8."""
    base = base.to(device).eval()
    out = torch.empty(count, *data.clips.shape[1:], dtype=torch.uint8)
    for start in range(0, count, 32):
        generator = step_generator(seed, start, device)
        rows = torch.arange(start, min(start + 32, count), device=data.clips.device)
        clip, slots = data.frames(rows), data.text(rows, torch.zeros_like(rows))
        none = torch.zeros(clip.shape[:2], device=device)
        given = Conditions(slots, torch.ones(len(rows), device=device), data.layouts(rows), clip, none)
        t = torch.rand(len(rows), generator=generator, device=device) * 0.55 + 0.3
        noise = torch.randn(clip.shape, generator=generator, device=device)
        z = noised(clip, noise, t)
        with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
            first = base(z, t, given)[0].float()  # (B, 8, 48, 48, 3)
            z = z + 0.5 * (first - z)
            made = base(z, t + (1 - t) * 0.5, given)[0].float()
        out[start : start + len(rows)] = ((made.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    return out


def upsampler_batch(
    data: Dataset, high: Tensor, made: Tensor, rows: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random crops: low (B, 8, c, c, 3) with noise, level (B,), slots, target (B, 24, 8c/3, 8c/3, 3)."""
    device = generator.device
    count = len(rows)
    places = (LOW - CROP) // STRIDE + 1
    top, left = (torch.randint(0, places, (2,), generator=generator, device=device) * STRIDE).tolist()
    window = (slice(top, top + CROP), slice(left, left + CROP))
    from_base = torch.rand(count, 1, 1, 1, 1, generator=generator, device=device) < SHARE_MADE
    clean, mended = (part[rows][:, :, *window].to(device) for part in (data.clips, made))
    low = to_unit(torch.where(from_base, mended, clean))
    y, x, side = top * HIGH // LOW, left * HIGH // LOW, CROP * HIGH // LOW
    target = to_unit(high[rows][:, :, y : y + side, x : x + side].to(device))
    level = torch.rand(count, generator=generator, device=device).square() * MAX_LEVEL
    noise = torch.randn(low.shape, generator=generator, device=device)
    slots = data.text(rows, torch.zeros_like(rows)).to(device)
    return low + level[:, None, None, None, None] * noise, level, slots, target


def train_upsampler(
    model: SpaceTimeUpsampler,
    data: Dataset,
    high: Tensor,
    made: Tensor,
    path: Path,
    settings: UpsamplerSettings,
    report: Report,
) -> None:
    """Fit with an L1 loss."""
    s = settings
    model.to(device=s.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]

    def loss_at(step: int) -> Tensor:
        rows = batch_rows(len(high), s.batch, step, s.seed)
        low, level, slots, target = upsampler_batch(data, high, made, rows, step_generator(s.seed, step, s.device))
        with torch.autocast(s.device.split(":")[0], dtype=torch.bfloat16):
            out = model(low, level, slots)
        loss: Tensor = (out.float() - target).abs().mean()
        return loss

    plan = FitSettings(s.steps, s.rate, ema=0.995, warm_steps=30, device=s.device)
    fit(model, loss_at, path, plan, asdict(model.params), report)


def train_doubler(
    model: FrameDoubler, frames: Tensor, target: Tensor, path: Path, settings: UpsamplerSettings, report: Report
) -> None:
    """Fit frames (N, H, W, 3) to target (N, 2H, 2W, 3), both uint8, on crops, with an L1 loss."""
    s = settings
    model.to(device=s.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]

    def loss_at(step: int) -> Tensor:
        rows = batch_rows(len(frames), s.batch, step, s.seed)
        generator = step_generator(s.seed, step, "cpu")
        y, x = torch.randint(0, frames.shape[1] - DOUBLER_CROP + 1, (2,), generator=generator).tolist()
        c = DOUBLER_CROP
        low = to_unit(frames[rows][:, y : y + c, x : x + c].to(s.device))
        wanted = to_unit(target[rows][:, 2 * y : 2 * (y + c), 2 * x : 2 * (x + c)].to(s.device))
        with torch.autocast(s.device.split(":")[0], dtype=torch.bfloat16):
            out = model(low)
        loss: Tensor = (out.float() - wanted).abs().mean()
        return loss

    plan = FitSettings(s.steps, s.rate, ema=0.995, warm_steps=30, device=s.device)
    fit(model, loss_at, path, plan, asdict(model.params), report)


def load_upsampler(path: Path) -> SpaceTimeUpsampler:
    """The averaged space-time upsampler of a checkpoint, in evaluation mode."""
    return averaged(path, lambda params: SpaceTimeUpsampler(UpsamplerParams(**params)))


def load_doubler(path: Path) -> FrameDoubler:
    """The averaged frame doubler of a checkpoint, in evaluation mode."""
    return averaged(path, lambda params: FrameDoubler(SharpenerParams(**params)))


@torch.no_grad()
def doubling_pairs(
    upsampler: SpaceTimeUpsampler, data: Dataset, count: int, device: str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Frames the upsampler makes of the last `count` whole clips and the same instants rendered at twice the size.

    Two frames per clip: (2 count, 128, 128, 3) and (2 count, 256, 256, 3), uint8.
    """
    upsampler = upsampler.to(device)
    made, wanted = [], []
    whole = (data.scenes.begin == 0).nonzero()[:, 0]
    for row in whole[-count:].tolist():
        rows = torch.tensor([row], device=data.clips.device)
        slots = data.text(rows, torch.zeros_like(rows)).to(device)
        high = upsampler(data.frames(rows).to(device), torch.full((1,), 0.05, device=device), slots)[0]
        picks = [(row * 5) % HIGH_FRAMES, (row * 5 + 13) % HIGH_FRAMES]
        made.append(((high[picks].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu())
        scene = data.scenes.take(slice(row, row + 1))
        wanted.append(render(scene, HIGH_FRAMES, 2 * HIGH, 2 * HIGH, only=picks).clip[0].cpu())
    return torch.cat(made), torch.cat(wanted)
