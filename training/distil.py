"""Distils a base that wants guidance and many steps into a draft that needs neither: 1 to 4 steps, one evaluation each.

The student learns the teacher's flow map (Boffi et al. 2025) between the times of its own short schedules: from a point
of the path at t it must name the clip whose straight line leads to where the guided teacher is at the next time s,
after several small steps. Student and teacher share the space, the noise and the path, so what either began the other
can finish. See docs/adr/0012 for why not consistency, MeanFlow or distribution matching.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from core_cloud.models.video import BaseTransformer, Conditions
from training.data import Dataset
from training.fit import FitSettings, Report, Steps, fit, on_rows
from training.flow import known_frames, noised, open_layouts

Predict = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class DistilSettings:
    """A distillation: steps, batch in clips, the teacher's guidance and small steps per step of the student.

    schedules: numbers of steps the draft may take; their times t0 = i / n are what is learned.
    """

    steps: Steps
    batch: int = 16
    guidance: float = 1.5
    substeps: int = 2
    schedules: tuple[int, ...] = (4, 4, 4, 2, 1)
    layout_dropout: float = 0.1
    muon_rate: float = 0.002
    adam_rate: float = 2e-4
    device: str = "cpu"
    bfloat16: bool = True
    compiled: bool = True
    seed: int = 17


def intervals(count: int, schedules: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Times t and s of one step of the student per clip, each (count,), 0 <= t < s <= 1."""
    device = generator.device
    which = torch.randint(0, len(schedules), (count,), generator=generator, device=device)
    steps = torch.tensor(schedules, device=device)[which]
    place = (torch.rand(count, generator=generator, device=device) * steps).floor()
    return place / steps, (place + 1) / steps


def _wide(t: Tensor) -> Tensor:
    return t[:, None, None, None, None]


@torch.no_grad()
def teacher_target(
    teacher: Predict,
    z: Tensor,
    t: Tensor,
    s: Tensor,
    given: Conditions,
    settings: DistilSettings,
) -> Tensor:
    """The clean clip (B, T, H, W, 3) whose line from z at t passes where the guided teacher is at s.

    Known frames are held, as in sampling; `given.keep` is not looked at.
    """
    held = given.mask[:, :, None, None, None]
    twice = Conditions(*(torch.cat([part, part]) for part in given))
    twice = twice._replace(keep=torch.cat([torch.ones_like(t), torch.zeros_like(t)]))
    now, here = t, z
    width = (s - t) / settings.substeps
    for _ in range(settings.substeps):
        out = teacher(torch.cat([here, here]), torch.cat([now, now]), twice)[0].float()
        told, untold = out.chunk(2)
        clean = (untold + settings.guidance * (told - untold)).clamp(-1, 1)
        clean = torch.where(held > 0, given.known, clean)
        here = here + _wide(width / (1 - now)) * (clean - here)
        now = now + width
    return z + _wide((1 - t) / (s - t)) * (here - z)


def train_draft(
    student: BaseTransformer,
    teacher: BaseTransformer,
    data: Dataset,
    path: Path,
    settings: DistilSettings,
    report: Report,
) -> None:
    """Train the student, usually a copy of the teacher, on points of real clips' paths."""
    s = settings
    student.to(s.device).train()
    teacher.to(s.device).eval()
    taught = torch.compile(teacher) if s.compiled else teacher
    learning = torch.compile(student) if s.compiled else student

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        clip, slots = data.frames(rows), data.text(rows, torch.zeros_like(rows))
        t, until = intervals(len(rows), s.schedules, generator)
        mask = known_frames(data.later(rows), clip.shape[1], generator)
        layout = open_layouts(data.layouts(rows), mask, s.layout_dropout, generator)
        given = Conditions(slots, torch.ones_like(t), layout, clip, mask)
        z = noised(clip, torch.randn(clip.shape, generator=generator, device=s.device), t)
        with torch.autocast(s.device.split(":")[0], dtype=torch.bfloat16, enabled=s.bfloat16):
            target = teacher_target(taught, z, t, until, given, s)
            made = learning(z, t, given)[0]
        # The point reached at s is off by (s - t) / (1 - t) of the clip's error; a step that ends at the clip is
        # off by all of it. One common floor keeps early steps from being forgotten.
        weight = ((until - t) / (1 - t)).clamp(min=0.3)
        off: Tensor = ((made.float() - target).square().mean(dim=(1, 2, 3, 4)) * weight).mean()
        return off

    loss_at = on_rows(len(data), s.batch, s.seed, s.device, loss)
    plan = FitSettings(s.steps, s.adam_rate, s.muon_rate, ema=0.99, warm_steps=20, device=s.device)
    fit(student, loss_at, path, plan, asdict(student.params), report)
