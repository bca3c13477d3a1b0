"""Trains the finder on frames of the data set, told by their captions what to look for."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from core_cloud.models.finder import Finder, FinderParams
from core_cloud.models.layout import SMALLEST_RADIUS
from core_cloud.models.reader import OBJECT_SLOTS
from training.data import Dataset
from training.fit import FitSettings, Report, Steps, averaged, fit, on_rows

FRAMES = 2  # of each clip in a batch
STRANGE = 0.2  # share of clips that show something else than what is looked for
SPOILT = 0.15  # most noise, on the [-1, 1] scale


@dataclass(frozen=True, slots=True)
class FinderSettings:
    """A run of the finder: steps, batch in clips, rate, device."""

    steps: Steps
    batch: int = 32
    rate: float = 2e-3
    device: str = "cpu"
    seed: int = 37


def finder_loss(model: Finder, data: Dataset, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Absolute errors of place, radius and angle where there is an object, and the cross-entropy of its presence."""
    device, count = generator.device, len(rows)
    which = torch.randint(0, data.clips.shape[1], (count, FRAMES), generator=generator, device=device)
    each = torch.arange(count, device=device)[:, None]
    frames = data.frames(rows)[each, which]  # (B, FRAMES, H, W, 3)
    level = SPOILT * torch.rand(count, 1, 1, 1, 1, generator=generator, device=device)
    frames = frames + level * torch.randn(frames.shape, generator=generator, device=device)
    wordings = torch.randint(0, data.slots.shape[1], (count,), generator=generator, device=device)
    slots, strange = data.text(rows, wordings), torch.rand(count, generator=generator, device=device) < STRANGE
    wanted = data.layouts(rows)[each, :OBJECT_SLOTS, which].transpose(1, 2)  # (B, K, FRAMES, V)
    made = model(frames, torch.where(strange[:, None, None], slots.roll(1, 0), slots))
    there = wanted[..., 5] * ~strange[:, None, None]
    # A caption of another clip may name something that is here too; that is rare, and left.
    presence = F.binary_cross_entropy_with_logits(made[..., 5], there)
    radius = (made[..., 2].log() - wanted[..., 2].clamp(min=SMALLEST_RADIUS).log()).abs()
    place = (made[..., :2] - wanted[..., :2]).abs().sum(-1)
    angle = (made[..., 3:5] - wanted[..., 3:5]).abs().sum(-1)
    off = ((10.0 * place + radius + 0.5 * angle) * there).sum() / there.sum().clamp(min=1.0)
    loss: Tensor = off + presence
    return loss


def train_finder(model: Finder, data: Dataset, path: Path, settings: FinderSettings, report: Report) -> None:
    """Train for all steps; `fit` says how runs resume."""
    s = settings
    model.to(s.device).train()
    loss_at = on_rows(len(data), s.batch, s.seed, s.device, partial(finder_loss, model, data))
    fit(model, loss_at, path, FitSettings(s.steps, s.rate, device=s.device), asdict(model.params), report)


def load_finder(path: Path) -> Finder:
    """The averaged finder of a checkpoint, in evaluation mode."""
    return averaged(path, lambda params: Finder(FinderParams(**params)))
