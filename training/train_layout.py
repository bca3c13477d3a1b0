"""Trains the planner: a flow over the layouts of drawn scenes, told what the reader reads in their captions.

A layout costs next to nothing to compute, so every step draws new ones: the data set's captions with other jitter.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from core_cloud.models.layout import FRAMES, Planner, PlannerParams, scaled
from core_cloud.models.reader import OBJECT_SLOTS
from training.data import Dataset, beginnings
from training.fit import FitSettings, Report, Steps, averaged, fit, on_rows
from training.flow import known_frames, noised
from training.world import JITTERS, SceneBatch, clip_times, layouts

CLAMP = 0.1
LATER = 0.08  # share of clips that begin later
LOST = 0.15  # share of objects that are not found in known frames
ERROR = 0.02  # deviation of what is found, on the scale of the flow


@dataclass(frozen=True, slots=True)
class PlannerSettings:
    """A run of the planner: steps, batch in layouts, rates, device."""

    steps: Steps
    batch: int = 256
    muon_rate: float = 0.01
    adam_rate: float = 2e-3
    device: str = "cpu"
    seed: int = 23


def planner_loss(model: Planner, data: Dataset, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared error of the velocity; t is uniform, with 1 - t clamped so that the last steps do not dominate.

    Where frames are known, objects are told to be where they are in them, a little beside it, and some are not found.
    Some clips begin later and have their first half known.
    """
    device = generator.device
    count = len(rows)
    jitter = torch.rand(count, JITTERS, generator=generator, device=device)
    later = torch.rand(count, generator=generator, device=device) < LATER
    begin = beginnings(count, generator) * later
    scenes = SceneBatch(data.scenes.things[rows], data.scenes.setting[rows], jitter, begin)
    wordings = torch.randint(0, data.slots.shape[1], (count,), generator=generator, device=device)
    truth = layouts(scenes, clip_times(FRAMES, device.type))
    clean = scaled(truth)
    noise = torch.randn(clean.shape, generator=generator, device=device)
    t = torch.rand(count, generator=generator, device=device)
    told = known_frames(later, FRAMES, generator)[:, None] * clean.new_ones(clean.shape[:3])  # (B, SLOTS, T)
    found = torch.rand(told.shape[:2], generator=generator, device=device) >= LOST  # (B, SLOTS)
    lost = ~(found & (truth[..., 0, 5] > 0))[:, :OBJECT_SLOTS].any(1)
    found |= (later & lost)[:, None]  # with nothing told, a later clip would be taken for a whole one
    found[:, OBJECT_SLOTS:] = False  # nobody looks for the ground
    told = told * found[..., None] * truth[..., 5]
    beside = clean + ERROR * torch.randn(clean.shape, generator=generator, device=device)
    predicted = model(noised(clean, noise, t), t, data.text(rows, wordings), beside, told)
    steep = 1.0 / (1.0 - t).clamp(min=CLAMP).square()
    loss: Tensor = ((predicted - clean).square().mean(dim=(1, 2, 3)) * steep).mean()
    return loss


def train_planner(model: Planner, data: Dataset, path: Path, settings: PlannerSettings, report: Report) -> None:
    """Train for all steps; `fit` says how runs resume."""
    s = settings
    model.to(s.device).train()
    loss_at = on_rows(len(data), s.batch, s.seed, s.device, partial(planner_loss, model, data))
    plan = FitSettings(s.steps, s.adam_rate, s.muon_rate, device=s.device)
    fit(model, loss_at, path, plan, asdict(model.params), report)


def load_planner(path: Path) -> Planner:
    """The averaged planner of a checkpoint, in evaluation mode."""
    return averaged(path, lambda params: Planner(PlannerParams(**params)))
