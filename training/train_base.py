"""Trains the base transformer on the flow's velocity, with objects weighted and located."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_cloud.models.reader import OBJECT_SLOTS
from core_cloud.models.video import BaseParams, BaseTransformer, Conditions
from training.data import CELL, Dataset
from training.fit import FitSettings, Report, Steps, averaged, fit, on_rows
from training.flow import known_frames, noised, open_layouts, sample_t, velocity_loss
from training.world import RADIUS

MEDIUM_RADIUS = float(RADIUS[1])  # of a lone object, in frame widths
LARGEST_WEIGHT = 2.0  # of a cell of a small object, where one of a medium object has 1
Predict = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class BaseSettings:
    """A run of the base: steps, batch size in clips, rates, device, bfloat16 and compiled or not."""

    steps: Steps
    batch: int = 32
    muon_rate: float = 0.01
    adam_rate: float = 2e-3
    text_dropout: float = 0.1
    layout_dropout: float = 0.1
    foreground: float = 3.0
    locating: float = 0.3
    device: str = "cpu"
    bfloat16: bool = True
    compiled: bool = True
    seed: int = 0


class Locator(nn.Module):
    """Reads every object's outline from the features of the patches; used in training only."""

    def __init__(self, params: BaseParams) -> None:
        super().__init__()
        self.outlines = nn.Linear(params.dim, OBJECT_SLOTS * params.patch_frames * (params.patch_size // CELL) ** 2)

    def forward(self, features: Tensor) -> Tensor:
        """(B, L, D) -> logits (B, L, values of `patch_shares`)."""
        out: Tensor = self.outlines(features)
        return out


def patch_shares(shares: Tensor, params: BaseParams) -> Tensor:
    """Coverage (B, 3, T, h, w) of cells cut into the patches of a base: (B, L, 3 * cells of a patch)."""
    frames, rows, columns = params.grid
    side = params.patch_size // CELL
    x = shares.reshape(-1, OBJECT_SLOTS, frames, params.patch_frames, rows, side, columns, side)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(len(shares), frames * rows * columns, -1)


def object_weight(shares: Tensor, radius: Tensor) -> Tensor:
    """How much every cell matters more than the ground, (B, T, h, w), of coverage (B, 3, T, h, w) and radius (B, 3, T).

    One for a cell that is all a medium object; more for small objects, which have fewer pixels to be read by.
    """
    factor = (MEDIUM_RADIUS / radius.clamp(min=MEDIUM_RADIUS / LARGEST_WEIGHT)).clamp(min=0.75)
    return (shares * factor[..., None, None]).amax(1)


def base_loss(
    model: Predict,
    locator: Locator,
    params: BaseParams,
    data: Dataset,
    s: BaseSettings,
    rows: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Velocity loss of one batch, plus how badly the middle features tell the outline of each object.

    The text is dropped for `text_dropout` of the clips, the layout as `open_layouts` says. Pixels of objects weigh more
    (`object_weight`): they are few, and what the captions ask for. Knowing the objects' outlines in the middle of the
    net (after REPA, Yu et al. 2024, with the renderer's masks in place of another network's features) binds slots to
    places and shapes early in training.
    """
    clip = data.frames(rows)  # (B, T, H, W, 3)
    count, frames, height, width, _ = clip.shape
    device = generator.device
    wordings = torch.randint(0, data.slots.shape[1], (count,), generator=generator, device=device)
    slots = data.text(rows, wordings)
    keep = (torch.rand(count, generator=generator, device=device) >= s.text_dropout).float()
    t = sample_t(count, generator)
    mask = known_frames(data.later(rows), frames, generator)
    truth = data.layouts(rows)
    layout = open_layouts(truth, mask, s.layout_dropout, generator)
    noise = torch.randn(clip.shape, generator=generator, device=device)
    shares = data.shares(rows)  # (B, 3, T, 24, 24)
    stressed = object_weight(shares, truth[:, :OBJECT_SLOTS, :, 2])  # (B, T, 24, 24)
    weight = F.interpolate(stressed, (height, width))[..., None]  # (B, T, H, W, 1)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=s.bfloat16):
        predicted, middle = model(noised(clip, noise, t), t, Conditions(slots, keep, layout, clip, mask))
        places = locator(middle)
    loss = velocity_loss(predicted, clip, t, 1.0 + s.foreground * weight)
    return loss + s.locating * F.binary_cross_entropy_with_logits(places.float(), patch_shares(shares, params))


def train_base(model: BaseTransformer, data: Dataset, path: Path, settings: BaseSettings, report: Report) -> None:
    """Train for all steps; `fit` says how runs resume."""
    s = settings
    model.to(s.device).train()
    locator = Locator(model.params).to(s.device)
    forward = torch.compile(model) if s.compiled else model
    loss = partial(base_loss, forward, locator, model.params, data, s)
    loss_at = on_rows(len(data), s.batch, s.seed, s.device, loss)
    plan = FitSettings(s.steps, s.adam_rate, s.muon_rate, device=s.device)
    fit(model, loss_at, path, plan, asdict(model.params), report, helper=locator)


def pruned(whole: BaseTransformer, *, kv_pool: int, attending: int) -> BaseTransformer:
    """The same network with its attention pruned as `BaseParams` says, to be trained on."""
    model = BaseTransformer(replace(whole.params, kv_pool=kv_pool, attending=attending))
    kept = whole.state_dict()
    model.load_state_dict({name: kept[name] for name in model.state_dict()})
    return model


def load_base(path: Path) -> BaseTransformer:
    """The averaged model of a checkpoint, in evaluation mode."""
    return averaged(path, lambda params: BaseTransformer(BaseParams(**params)))
