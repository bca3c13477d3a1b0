"""Trains the base transformer: resumable, on a time budget, with a CSV of the loss.

The learning rate is flat, then falls linearly over the last half of the time budget; the budget counts training time
only, so a run that was interrupted or slowed down resumes where its schedule stood.
"""

import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core_cloud.models.pocket import BaseParams, BaseTransformer
from training.data import Dataset
from training.flow import noised, sample_t, velocity_loss

LONGEST_STEP_S = 20.0  # a step that took longer was suspended; the budget is not charged for it


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What a run is allowed: minutes of training time, batch size in clips, rates, device, bfloat16 or not."""

    minutes: float
    batch: int = 32
    muon_rate: float = 0.01
    adam_rate: float = 2e-3
    ema: float = 0.998
    text_dropout: float = 0.1
    save_every_s: float = 120.0
    device: str = "cpu"
    bfloat16: bool = True
    compiled: bool = True
    seed: int = 0


class Optimisers:
    """Muon for the matrices inside the blocks, AdamW for everything else, one common rate factor."""

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        inside = {n: p for n, p in model.named_parameters() if "blocks." in n and n.endswith("weight") and p.ndim == 2}
        others = [p for n, p in model.named_parameters() if n not in inside]
        self.rates = (settings.muon_rate, settings.adam_rate)
        self.both: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(list(inside.values()), lr=settings.muon_rate, weight_decay=0.01),
            torch.optim.AdamW(others, lr=settings.adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
        )

    def step(self, factor: float) -> None:
        """Apply the gradients at `factor` of the full rates, then clear them."""
        for optimiser, rate in zip(self.both, self.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, object]]:
        """For the checkpoint."""
        return [optimiser.state_dict() for optimiser in self.both]

    def load(self, state: list[dict[str, object]]) -> None:
        """From the checkpoint."""
        for optimiser, part in zip(self.both, state, strict=True):
            optimiser.load_state_dict(part)


class Average:
    """Exponential moving average of a model's parameters, short at first."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model's current parameters."""
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.dtype.is_floating_point:
                    self.values[name].lerp_(value, 1 - decay)


def rate_factor(spent: float, minutes: float) -> float:
    """Share of the full rate after `spent` minutes: warm-up for half a minute, flat, falling over the second half."""
    warm = min(1.0, (spent + 0.01) / 0.5)
    left = max(0.0, 1.0 - spent / minutes)
    return warm * min(1.0, max(0.02, left / 0.5))


def shuffled_rows(count: int, batch: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Rows of one batch after the other, reshuffled each epoch, for ever."""
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def base_loss(
    model: Callable[..., Tensor], data: Dataset, rows: NDArray[np.int64], s: TrainSettings, generator: torch.Generator
) -> Tensor:
    """Velocity loss of one batch, with the text dropped for `text_dropout` of the clips."""
    clip = data.frames(rows, s.device)  # (B, T, H, W, 3)
    tokens, mask, pooled = data.text(rows, s.device)
    kept = torch.rand(len(rows), 1, generator=generator) >= s.text_dropout  # (B, 1)
    t = sample_t(len(rows), generator, s.device)
    noise = torch.randn(clip.shape, generator=generator).to(s.device)
    with torch.autocast(s.device.split(":")[0], dtype=torch.bfloat16, enabled=s.bfloat16):
        predicted = model(noised(clip, noise, t), t, tokens, mask * kept.to(s.device), pooled)
    return velocity_loss(predicted, clip, t)


def save_checkpoint(
    path: Path, model: nn.Module, average: Average, optimisers: Optimisers, params: BaseParams, spent: float, steps: int
) -> None:
    """Write the checkpoint whole or not at all."""
    state = {
        "model": model.state_dict(),
        "ema": average.values,
        "optimisers": optimisers.state(),
        "params": asdict(params),
        "spent_minutes": spent,
        "steps": steps,
    }
    scratch = path.with_suffix(".part")
    torch.save(state, scratch)
    scratch.replace(path)


def load_base(path: Path) -> BaseTransformer:
    """The averaged model of a checkpoint, in evaluation mode."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = BaseTransformer(BaseParams(**state["params"]))
    model.load_state_dict(state["ema"])
    return model.eval()


def grow(model: BaseTransformer, depth: int) -> BaseTransformer:
    """A deeper copy that computes the same function: new blocks are spread between the old ones, gates closed."""
    old = model.params
    deeper = BaseTransformer(BaseParams(**{**asdict(old), "depth": depth}))
    state = model.state_dict()
    kept = {name: value for name, value in state.items() if not name.startswith("blocks.")}
    deeper.load_state_dict(kept, strict=False)
    place = {round((i + 1) * depth / old.depth) - 1: i for i in range(old.depth)}
    with torch.no_grad():
        for index, block in enumerate(deeper.blocks):
            source = model.blocks[place[index] if index in place else min(place[j] for j in place if j > index)]
            block.load_state_dict(source.state_dict())
            if index not in place:
                block.out.weight.zero_()  # type: ignore[union-attr, operator]
                block.down.weight.zero_()  # type: ignore[union-attr, operator]
                block.down.bias.zero_()  # type: ignore[union-attr, operator]
    return deeper


def train_base(
    model: BaseTransformer,
    data: Dataset,
    folder: Path,
    settings: TrainSettings,
    report: Callable[[float, int, float], None],
) -> Path:
    """Train until the budget is spent; returns the checkpoint. report(minutes spent, step, loss) every 20 steps."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "base.pt"
    model.to(settings.device).train()
    optimisers, average = Optimisers(model, settings), Average(model, settings.ema)
    spent, steps = 0.0, 0
    if path.exists():
        state = torch.load(path, map_location=settings.device, weights_only=True)
        model.load_state_dict(state["model"])
        average.values = state["ema"]
        optimisers.load(state["optimisers"])
        spent, steps = state["spent_minutes"], state["steps"]
    generator = torch.Generator().manual_seed(settings.seed + steps)
    rows = shuffled_rows(len(data), settings.batch, settings.seed + steps)
    forward = torch.compile(model) if settings.compiled else model
    saved, losses = time.monotonic(), []
    while spent < settings.minutes:
        started = time.monotonic()
        loss = base_loss(forward, data, next(rows), settings, generator)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimisers.step(rate_factor(spent, settings.minutes))
        steps += 1
        average.update(model, steps)
        losses.append(loss.item())
        spent += min(time.monotonic() - started, LONGEST_STEP_S) / 60
        if steps % 20 == 0:
            _log(folder / "loss.csv", spent, steps, float(np.mean(losses[-20:])))
            report(spent, steps, float(np.mean(losses[-20:])))
        if time.monotonic() - saved > settings.save_every_s:
            save_checkpoint(path, model, average, optimisers, model.params, spent, steps)
            saved = time.monotonic()
    save_checkpoint(path, model, average, optimisers, model.params, spent, steps)
    return path


def _log(path: Path, spent: float, steps: int, loss: float) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(["minutes", "step", "loss"])
        writer.writerow([f"{spent:.3f}", steps, f"{loss:.5f}"])
