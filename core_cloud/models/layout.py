"""Pocket's planner in torch: a small flow over layouts, which say where every thing of a clip is in every frame.

A layout is a float tensor (B, SLOTS, T, LAYOUT_VALUES), a row for each of the reader's slots: centre x and y and radius
in frame widths, cosine and sine of the angle, and 1 where there is such a thing; all 0 where there is none. The last
row is the ground as the camera sees it, a thing like the others: where its middle is, and how large it looks. It alone
has layers: how far along it each of LAYERS lies, in frame widths, and 1 where that is told; zeros leave it to the
pixels. The base paints what stands in the layout (`core_cloud.models.grounding`), so where things are is settled before
the first pixel, and by the seed alone: every model that shares the planner puts the things of one prompt and seed into
the same places.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_cloud.models.attention import RMSNorm, rotary_angles, wave
from core_cloud.models.reader import OBJECT_SLOTS, SLOTS
from core_cloud.models.transformer import Block

FRAMES = 8
THING_VALUES, LAYERS = 6, 2
LAYOUT_VALUES = THING_VALUES + LAYERS + 1
GROUND_RADIUS = 0.25  # of the ground, in frame widths, before any zoom; any fixed length would do
SMALLEST_RADIUS = 0.03  # in frame widths; below a pixel and a half of the base's clip nothing can be told apart
# Of x, y, log radius, cosine, sine, presence, layers, and whether these are told.
_MIDDLE = (0.5, 0.5, -1.75, 0.5, 0.0, 0.5, 0.0, 0.0, 0.0)
_RANGE = (0.2, 0.2, 0.35, 0.5, 0.5, 0.5, 0.3, 0.3, 1.0)


@dataclass(frozen=True, slots=True)
class PlannerParams:
    """Shape of the planner."""

    dim: int = 192
    depth: int = 4
    heads: int = 3
    slot_dim: int = 192


def centres(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """x and y of the middles of a grid's cells over the frame, row by row, in frame widths; each (rows * columns,)."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    return x.flatten(), y.flatten()


def scaled(layout: Tensor) -> Tensor:
    """Layouts as the flow sees them: about zero mean and unit range, radii as logarithms."""
    radius = layout[..., 2:3].clamp(min=SMALLEST_RADIUS).log()
    values = torch.cat([layout[..., :2], radius, layout[..., 3:]], dim=-1)
    there = layout[..., 5:6]
    middle, spread = layout.new_tensor(_MIDDLE), layout.new_tensor(_RANGE)
    out = (values - middle) / spread
    return torch.cat([out[..., :5] * there, out[..., 5:]], dim=-1)


def unscaled(values: Tensor) -> Tensor:
    """The inverse of `scaled`, with a presence of 0 or 1, angles of unit length, and zeros where nothing is.

    Presence and layers are the same in all frames, and only the ground has layers.
    """
    middle, spread = values.new_tensor(_MIDDLE), values.new_tensor(_RANGE)
    x = values * spread + middle
    there = (x[..., 5:6].mean(dim=2, keepdim=True) > 0.5).to(x.dtype).expand_as(x[..., 5:6])
    angle = F.normalize(x[..., 3:5], dim=-1)
    lie = x[..., THING_VALUES:-1].mean(dim=2, keepdim=True).expand(-1, -1, FRAMES, -1)
    lie = torch.cat([lie, torch.ones_like(there)], dim=-1)  # (B, SLOTS, T, LAYERS + 1)
    lie = torch.cat([torch.zeros_like(lie[:, :OBJECT_SLOTS]), lie[:, OBJECT_SLOTS:]], dim=1)
    return torch.cat([x[..., :2], x[..., 2:3].exp(), angle, torch.ones_like(there), lie], dim=-1) * there


class Planner(nn.Module):
    """Predicts the clean layout (scaled) from a noisy one: one token per thing, modulated by time and text.

    Where things are in some frames may be told, as it is found in frames that are given.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, params: PlannerParams) -> None:
        super().__init__()
        self.params = params
        dim = params.dim
        self.embed = nn.Linear(FRAMES * LAYOUT_VALUES, dim)
        self.embed_known = nn.Linear(FRAMES * (LAYOUT_VALUES + 1), dim, bias=False)
        self.thing = nn.Linear(params.slot_dim, dim)
        self.time = nn.Sequential(nn.Linear(128, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.setting = nn.Linear(params.slot_dim, dim)
        self.modulate = nn.Linear(dim, 6 * dim)
        angles = rotary_angles(dim // params.heads, (SLOTS, 1, 1), 0)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        self.blocks = nn.ModuleList(Block(dim, params.heads) for _ in range(params.depth))
        self.norm = RMSNorm()
        self.head = nn.Linear(dim, FRAMES * LAYOUT_VALUES)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, noisy: Tensor, t: Tensor, slots: Tensor, known: Tensor, told: Tensor) -> Tensor:
        """noisy (B, SLOTS, T, V), t (B,) in [0, 1], slots (B, SLOTS, slot_dim) -> clean, as noisy.

        known (B, SLOTS, T, V), scaled, holds where told (B, SLOTS, T) is 1.
        """
        share = told[..., None]
        given = torch.cat([known * share, share], dim=-1)  # (B, SLOTS, T, V + 1)
        x = self.embed(noisy.flatten(2)) + self.embed_known(given.flatten(2)) + self.thing(slots)  # (B, SLOTS, D)
        mixed = self.time(wave(t)) + self.setting(slots[:, OBJECT_SLOTS])  # (B, D)
        modulation = self.modulate(F.silu(mixed)).view(-1, 6, self.params.dim)
        for block in self.blocks:
            x = block(x, modulation, (self.cosine, self.sine))
        out: Tensor = self.head(self.norm(x)).reshape(noisy.shape)
        return out


class PlannerStep(nn.Module):
    """What one step of sampling needs: the clean layout, scaled to go on from and unscaled to end with."""

    def __init__(self, planner: Planner) -> None:
        super().__init__()
        self.planner = planner

    def forward(self, noisy: Tensor, t: Tensor, slots: Tensor, known: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """As the planner, with known as a layout; returns the clean values and the layout they mean."""
        clean = self.planner(noisy, t, slots, scaled(known), told)
        return clean, unscaled(clean)
