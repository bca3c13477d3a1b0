"""The training loop of every network: resumable at any step with the same outcome, with a CSV of the loss.

The learning rate is flat, then falls linearly over the last half of the steps. Every step draws its data and noise
from the seed and its own number, so an interrupted run continues exactly as if it had not been interrupted.
"""

import csv
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from adaptivegen.errors import InvalidRequest

Network = TypeVar("Network", bound=nn.Module)
Report = Callable[[float, float], None]  # share done, recent loss
Steps = int | Callable[[float], int]  # how many, or what makes a number of the seconds that one step takes


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How long and how fast to train. muon_rate None trains everything with AdamW."""

    steps: Steps
    adam_rate: float
    muon_rate: float | None = None
    weight_decay: float = 0.0
    ema: float = 0.998
    warm_steps: int = 60
    save_every_s: float = 120.0
    device: str = "cpu"


class Optimisers:
    """Muon for the matrices inside the blocks, AdamW for everything else, one common rate factor."""

    def __init__(self, model: nn.Module, settings: FitSettings) -> None:
        named = dict(model.named_parameters())
        inside = {n for n, p in named.items() if "blocks." in n and n.endswith("weight") and p.ndim == 2}
        if settings.muon_rate is None:
            inside = set()
        self.rates: list[float] = [settings.adam_rate]
        others = [p for n, p in named.items() if n not in inside]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=settings.adam_rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay)
        ]
        if settings.muon_rate is not None:
            self.rates.append(settings.muon_rate)
            matrices = [named[n] for n in sorted(inside)]
            self.parts.append(torch.optim.Muon(matrices, lr=settings.muon_rate, weight_decay=0.01))

    def step(self, factor: float) -> None:
        """Apply the gradients at `factor` of the full rates, then clear them."""
        for optimiser, rate in zip(self.parts, self.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        """For the checkpoint."""
        return [optimiser.state_dict() for optimiser in self.parts]

    def load(self, state: list[dict[str, Any]]) -> None:
        """From the checkpoint."""
        for optimiser, part in zip(self.parts, state, strict=True):
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
                else:
                    self.values[name].copy_(value)


def rate_factor(step: int, steps: int, warm: int = 60) -> float:
    """Share of the full rate at a step: warm-up, flat, falling over the second half."""
    return min(1.0, (step + 1) / warm) * min(1.0, max(0.02, 2.0 * (1.0 - step / steps)))


def batch_rows(count: int, batch: int, step: int, seed: int) -> Tensor:
    """Rows (batch,) of this step: each epoch is one permutation of the data set, whatever ran before."""
    per_epoch = count // batch
    if per_epoch == 0:
        raise InvalidRequest.field("batch", batch, f"at most the {count} clips of the data set")
    epoch, place = divmod(step, per_epoch)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
    return order[place * batch : (place + 1) * batch]


def step_generator(seed: int, step: int, device: str) -> torch.Generator:
    """Randomness of one step, the same whenever it is run."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step)


def on_rows(
    count: int, batch: int, seed: int, device: str, loss: Callable[[Tensor, torch.Generator], Tensor]
) -> Callable[[int], Tensor]:
    """The loss of a step as `fit` wants it, of one that is told the rows (batch,) of `count` and the randomness."""

    def loss_at(step: int) -> Tensor:
        rows = batch_rows(count, batch, step, seed).to(device)
        return loss(rows, step_generator(seed, step, device))

    return loss_at


UNSETTLED = 1 << 40  # steps of a run whose length is still being measured
WARM_TIMED, LAST_TIMED = 4, 16  # the steps between these are timed; the rate's warm-up is longer


@dataclass(slots=True)
class _Run:
    model: nn.Module
    helper: nn.Module | None
    optimisers: Optimisers
    average: Average
    params: dict[str, Any]
    steps: int
    step: int = 0

    def save(self, path: Path) -> None:
        """Write the checkpoint whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "helper": {} if self.helper is None else self.helper.state_dict(),
            "ema": self.average.values,
            "optimisers": self.optimisers.state(),
            "step": self.step,
            "params": self.params,
            "steps": self.steps,
        }
        scratch = path.with_suffix(".part")
        torch.save(state, scratch)
        scratch.replace(path)

    def restore(self, path: Path, device: str) -> None:
        state = read_checkpoint(path, device)
        if self.steps == UNSETTLED:
            self.steps = state["steps"]
        for name, mine in (("params", self.params), ("steps", self.steps)):
            if state[name] != mine:
                begun = f"{state[name]}, which the checkpoint {path.name} was begun with; or another folder"
                raise InvalidRequest.field(name, mine, begun)
        self.model.load_state_dict(state["model"])
        if self.helper is not None:
            self.helper.load_state_dict(state["helper"])
        self.average.values = state["ema"]
        self.optimisers.load(state["optimisers"])
        self.step = state["step"]


def fit(
    model: nn.Module,
    loss_at: Callable[[int], Tensor],
    path: Path,
    settings: FitSettings,
    params: dict[str, Any],
    report: Report,
    helper: nn.Module | None = None,
) -> None:
    """Train `model` (and a `helper` that is not kept) for all steps, from the checkpoint `path` if there is one.

    loss_at(step) computes the loss of a step from nothing but its number and the networks. params: what the network is
    built from, kept in the checkpoint. Raises InvalidRequest when the checkpoint is of another network or another
    number of steps.
    """
    s = settings
    path.parent.mkdir(parents=True, exist_ok=True)
    trained = [model] if helper is None else [model, helper]
    optimisers = Optimisers(nn.ModuleList(trained), s)
    steps = s.steps if isinstance(s.steps, int) else UNSETTLED
    run = _Run(model, helper, optimisers, Average(model, s.ema), params, steps)
    if path.exists():
        run.restore(path, s.device)
    saved, recent, timed = time.monotonic(), math.nan, 0.0
    while run.step < run.steps:
        if run.step == WARM_TIMED:
            timed = time.monotonic()
        loss = loss_at(run.step)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(_parameters(trained), 1.0)
        optimisers.step(rate_factor(run.step, run.steps, s.warm_steps))
        run.step += 1
        run.average.update(model, run.step)
        if run.step % 20 == 0:
            value = loss.item()
            recent = value if math.isnan(recent) else 0.8 * recent + 0.2 * value
            log_loss(path.with_suffix(".csv"), run.step, recent)
            report(run.step / run.steps, recent)
        if run.step == LAST_TIMED and not isinstance(s.steps, int) and run.steps == UNSETTLED:
            loss.item()  # waits for the device
            run.steps = s.steps((time.monotonic() - timed) / (LAST_TIMED - WARM_TIMED))
        if time.monotonic() - saved > s.save_every_s and run.steps != UNSETTLED:
            run.save(path)
            saved = time.monotonic()
    run.save(path)


def _parameters(models: Iterable[nn.Module]) -> list[nn.Parameter]:
    return [parameter for model in models for parameter in model.parameters()]


def read_checkpoint(path: Path, device: str = "cpu") -> dict[str, Any]:
    """The state that `fit` saved; raises InvalidRequest when the file is no such checkpoint."""
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        missing = {"model", "ema", "optimisers", "params", "step", "steps"} - set(state)
    except Exception as exc:
        raise InvalidRequest.field("checkpoint", path.name, f"a whole checkpoint ({exc})") from exc
    if missing:
        raise InvalidRequest.field("checkpoint", path.name, f"a checkpoint with {', '.join(sorted(missing))}")
    return state


def averaged(path: Path, build: Callable[[dict[str, Any]], Network]) -> Network:
    """The averaged network of a checkpoint, in evaluation mode; build makes it from the checkpoint's params."""
    state = read_checkpoint(path)
    model = build(state["params"])
    model.load_state_dict(state["ema"])
    return model.eval()


def log_loss(path: Path, step: int, loss: float) -> None:
    """Append one row to a CSV of step and loss."""
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(["step", "loss"])
        writer.writerow([step, f"{loss:.5f}"])
