"""Trains the upsamplers: clean renders are the target, noised, blurred or base-made low-resolution clips the input.

What the base model makes is not what the renderer draws, so half of the inputs are clips that were noised to some t
and brought back by the base in two steps: the upsampler learns to mend the base's own faults.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core_cloud.models.pocket import BaseTransformer
from core_cloud.models.upsampler import (
    SCALE,
    FrameDoubler,
    SharpenerParams,
    SpaceTimeUpsampler,
    UpsamplerParams,
)
from training.data import HIGH_FRAMES, LOW_SIZE, Dataset, to_unit
from training.flow import noised
from training.train import Average
from training.world import render

MAX_LEVEL = 0.3  # standard deviation of the noise added to the input, on the [-1, 1] scale
CROP = 16  # low-resolution pixels along each side of a training crop
Report = Callable[[float, int, float], None]


def render_high(data: Dataset, count: int, path: Path, size: int = SCALE * LOW_SIZE) -> NDArray[np.uint8]:
    """Frames of the first `count` scenes at full size, (count, 24, size, size, 3) uint8, kept on disk."""
    if not path.exists() or len(np.load(path, mmap_mode="r")) < count:
        scratch = path.with_suffix(".part.npy")
        high = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.uint8, shape=(count, HIGH_FRAMES, size, size, 3))
        for start in range(0, count, 16):
            high[start : start + 16] = render(
                data.scenes.take(slice(start, min(start + 16, count))), HIGH_FRAMES, size, size
            ).numpy()
        high.flush()
        scratch.replace(path)
    kept: NDArray[np.uint8] = np.load(path, mmap_mode="r")[:count]
    return kept


@torch.no_grad()
def reconstructions(
    base: BaseTransformer, data: Dataset, count: int, seed: int, device: str = "cpu"
) -> NDArray[np.uint8]:
    """What the base makes of the first `count` clips, noised to t in [0.35, 0.85]: (count, 8, 32, 32, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    base = base.to(device)
    out = np.empty((count, *data.clips.shape[1:]), dtype=np.uint8)
    for start in range(0, count, 16):
        rows = np.arange(start, min(start + 16, count))
        clip, text = data.frames(rows, device), data.text(rows, device)
        t = (torch.rand(len(rows), generator=generator) * 0.5 + 0.35).to(device)
        noise = torch.randn(clip.shape, generator=generator).to(device)
        z = noised(clip, noise, t)
        with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
            first = base(z, t, *text).float()  # (B, 8, 32, 32, 3)
            later = t + (1 - t) * 0.5
            share = ((later - t) / (1 - t))[:, None, None, None, None]
            made = base(z + share * (first - z), later, *text).float()
        out[rows] = ((made.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
    return out


def upsampler_batch(
    data: Dataset, high: NDArray[np.uint8], made: NDArray[np.uint8] | None, batch: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Random crops: low (B, 8, c, c, 3) with noise, level (B,), tokens, mask, target (B, 24, 4c, 4c, 3)."""
    rows = np.sort(rng.choice(len(high), batch, replace=False))
    top, left = rng.integers(0, LOW_SIZE - CROP + 1, 2)
    source = np.asarray(data.clips[rows])
    if made is not None:
        source = np.where(rng.random(batch)[:, None, None, None, None] < 0.6, made[rows], source)
    low = to_unit(torch.from_numpy(source[:, :, top : top + CROP, left : left + CROP].copy()))
    y, x, side = top * SCALE, left * SCALE, CROP * SCALE
    target = to_unit(torch.from_numpy(high[rows][:, :, y : y + side, x : x + side].copy()))
    level = torch.from_numpy(rng.random(batch).astype(np.float32)).square() * MAX_LEVEL
    noise = torch.from_numpy(rng.standard_normal(low.shape, dtype=np.float32))
    tokens, mask, _ = data.text(rows)
    return low + level[:, None, None, None, None] * noise, level, tokens, mask, target


def train_upsampler(
    model: SpaceTimeUpsampler,
    data: Dataset,
    high: NDArray[np.uint8],
    made: NDArray[np.uint8] | None,
    path: Path,
    minutes: float,
    report: Report,
    batch: int = 8,
    rate: float = 1e-3,
    device: str = "cpu",
) -> None:
    """Fit with an L1 loss until the minutes are spent; the averaged weights go to `path`."""
    model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    rng = np.random.default_rng(int(minutes * 1000))

    def loss() -> Tensor:
        parts = upsampler_batch(data, high, made, batch, rng)
        low, level, tokens, mask, target = (part.to(device) for part in parts)
        with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
            out = model(low, level, tokens, mask)
        error: Tensor = (out.float() - target).abs().mean()
        return error

    _fit(model, loss, asdict(model.params), path, minutes, rate, report)


def train_doubler(
    model: FrameDoubler,
    frames: NDArray[np.uint8],
    target: NDArray[np.uint8],
    path: Path,
    minutes: float,
    report: Report,
    batch: int = 8,
    rate: float = 1e-3,
    device: str = "cpu",
) -> None:
    """Fit frames (N, H, W, 3) to target (N, 2H, 2W, 3), both uint8, on crops of 48 pixels, with an L1 loss."""
    rng = np.random.default_rng(0)
    model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]

    def loss() -> Tensor:
        rows = np.sort(rng.choice(len(frames), batch, replace=False))
        y, x = (int(v) for v in rng.integers(0, frames.shape[1] - 48 + 1, 2))
        low = to_unit(torch.from_numpy(frames[rows, y : y + 48, x : x + 48].copy())).to(device)
        wanted = to_unit(torch.from_numpy(target[rows, 2 * y : 2 * y + 96, 2 * x : 2 * x + 96].copy())).to(device)
        with torch.autocast(device.split(":")[0], dtype=torch.bfloat16):
            out = model(low)
        error: Tensor = (out.float() - wanted).abs().mean()
        return error

    _fit(model, loss, asdict(model.params), path, minutes, rate, report)


def _fit(
    model: nn.Module,
    loss_of_batch: Callable[[], Tensor],
    params: dict[str, int],
    path: Path,
    minutes: float,
    rate: float,
    report: Report,
) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.0)
    average, started, steps, recent = Average(model, 0.995), time.monotonic(), 0, 0.0
    while (spent := (time.monotonic() - started) / 60) < minutes:
        factor = min(1.0, (steps + 1) / 30) * min(1.0, max(0.02, (1 - spent / minutes) / 0.6))
        optimiser.param_groups[0]["lr"] = rate * factor
        loss = loss_of_batch()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        steps += 1
        average.update(model, steps)
        recent = loss.item() if steps == 1 else 0.95 * recent + 0.05 * loss.item()
        if steps % 20 == 0:
            report(spent, steps, recent)
    torch.save({"ema": average.values, "params": params, "steps": steps, "loss": recent}, path)


def load_upsampler(path: Path) -> SpaceTimeUpsampler:
    """The averaged space-time upsampler of a checkpoint, in evaluation mode."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = SpaceTimeUpsampler(UpsamplerParams(**state["params"]))
    model.load_state_dict(state["ema"])
    return model.eval()


def load_doubler(path: Path) -> FrameDoubler:
    """The averaged frame doubler of a checkpoint, in evaluation mode."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = FrameDoubler(SharpenerParams(**state["params"]))
    model.load_state_dict(state["ema"])
    return model.eval()


def grow_upsampler(model: SpaceTimeUpsampler, depth: int) -> SpaceTimeUpsampler:
    """A deeper copy that computes the same function: appended blocks add nothing at first."""
    deeper = SpaceTimeUpsampler(UpsamplerParams(**{**asdict(model.params), "depth": depth}))
    deeper.load_state_dict(model.state_dict(), strict=False)
    for block in list(deeper.blocks)[model.params.depth :]:
        nn.init.zeros_(block.second.bias)  # type: ignore[arg-type, union-attr]
    return deeper


@torch.no_grad()
def doubling_pairs(upsampler: SpaceTimeUpsampler, data: Dataset, count: int) -> tuple[NDArray[np.uint8], ...]:
    """Frames the upsampler makes of the last `count` clips and the same instants rendered at twice the size.

    Two frames per clip: (2 count, 128, 128, 3) and (2 count, 256, 256, 3), uint8.
    """
    made, wanted = [], []
    for row in range(len(data) - count, len(data)):
        rows = np.asarray([row])
        tokens, mask, _ = data.text(rows)
        high = upsampler(data.frames(rows), torch.full((1,), 0.05), tokens, mask)[0]  # (24, 128, 128, 3)
        picks = [(row * 5) % HIGH_FRAMES, (row * 5 + 13) % HIGH_FRAMES]
        made.append(((high[picks].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
        scene = data.scenes.take(slice(row, row + 1))
        wanted.append(render(scene, HIGH_FRAMES, 2 * high.shape[1], 2 * high.shape[2], only=picks)[0])
    return torch.cat(made).numpy(), torch.cat(wanted).numpy()
