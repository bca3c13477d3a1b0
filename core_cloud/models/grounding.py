"""Puts a layout into the base: every patch is told which things are near it, what they are, where it is in them.

After GLIGEN (Li et al. 2023) and BlobGEN (Nie et al. 2024), which ground boxes and blobs by attention; here a patch
knows its own coordinates within each object, so painting a shape is a local matter. It knows them on the ground too,
which the camera moves: following the camera is then a local matter as well (as with the pixel-wise camera embeddings of
CameraCtrl, He et al. 2024). And where the layout says where the ground's layers lie, patches need not agree upon it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_cloud.models.layout import GROUND_RADIUS, LAYERS, SMALLEST_RADIUS, THING_VALUES, centres
from core_cloud.models.reader import OBJECT_SLOTS

OCTAVES = (0.25, 0.5, 1.0, 2.0)  # waves per two radii
FEATURES = 4 * len(OCTAVES) + 4  # of one thing in one frame at one patch
MARGIN = 0.09  # how far from an object's rim its patches may lie, in frame widths
FAR = 4.0  # radii beyond which coordinates are cut off
LAYER_WAVES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)  # per frame width; grounds repeat up to ten times
LAYER_FEATURES = 2 * (LAYERS + 1) * len(LAYER_WAVES)  # of one patch in one frame


class Grounding(nn.Module):
    """Layout and slots -> what every patch is told; zero layouts tell nothing but that nothing is known."""

    x: Tensor
    y: Tensor

    def __init__(self, grid: tuple[int, int, int], patch_frames: int, slot_dim: int, dim: int) -> None:
        super().__init__()
        self.frames, rows, columns = grid
        self.patch_frames = patch_frames
        x, y = centres(rows, columns)
        self.register_buffer("x", x, persistent=False)
        self.register_buffer("y", y, persistent=False)
        self.place = nn.Linear(patch_frames * FEATURES, dim)
        self.thing = nn.Linear(slot_dim, dim, bias=False)
        self.ground = nn.Linear(patch_frames * FEATURES, dim)
        self.layers = nn.Linear(patch_frames * LAYER_FEATURES, dim, bias=False)
        self.gate = nn.Linear(slot_dim, dim)
        # What lies on the ground is a function of place and setting that one layer cannot hold.
        self.lie = nn.Sequential(nn.Linear(dim, 2 * dim), nn.SiLU(), nn.Linear(2 * dim, dim))
        self.setting = nn.Linear(slot_dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.nothing = nn.Parameter(torch.zeros(dim))

    def forward(self, layout: Tensor, slots: Tensor) -> Tensor:
        """layout (B, SLOTS, T, V), slots (B, SLOTS, slot_dim) -> (B, L, dim)."""
        features, nearness = self.features(layout)
        batch, rows, _, places, _ = features.shape
        cut = (batch, rows, self.frames, self.patch_frames, places, FEATURES)
        features = features.reshape(cut).permute(0, 1, 2, 4, 3, 5).flatten(-2)  # (B, SLOTS, T/p, N, p * FEATURES)
        near = nearness.reshape(cut[:-1]).amax(3)[..., None]  # (B, SLOTS, T/p, N, 1)
        which = self.thing(slots[:, :OBJECT_SLOTS])[:, :, None, None]
        things = F.silu(self.place(features[:, :OBJECT_SLOTS]) + which)  # (B, OBJECT_SLOTS, T/p, N, dim)
        setting = slots[:, OBJECT_SLOTS:, None, None]  # (B, 1, 1, 1, slot_dim)
        layers = self.layer_features(layout[:, OBJECT_SLOTS:]).reshape(*cut[:1], 1, *cut[2:-1], LAYER_FEATURES)
        where = self.ground(features[:, OBJECT_SLOTS:]) + self.layers(layers.permute(0, 1, 2, 4, 3, 5).flatten(-2))
        ground = F.silu(where * (1 + self.gate(setting)) + self.setting(setting))  # (B, 1, T/p, N, dim)
        ground = ground + self.lie(ground)
        told = (torch.cat([things, ground], dim=1) * near).sum(1)  # (B, T/p, N, dim)
        unknown = 1 - layout[..., 5].amax(dim=(1, 2))[:, None, None]
        out: Tensor = self.out(told).flatten(1, 2) + self.nothing * unknown
        return out

    def features(self, layout: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates of patches in things (B, SLOTS, T, N, FEATURES), their nearness in [0, 1] (B, SLOTS, T, N).

        The ground is near everywhere.
        """
        x, y, radius, cosine, sine, there = layout[..., :THING_VALUES, None].unbind(3)  # (B, SLOTS, T, 1) each
        radius = radius.clamp(min=SMALLEST_RADIUS)
        right, down = self.x - x, self.y - y  # (B, SLOTS, T, N)
        near = torch.exp(-1.5 * (right.square() + down.square()) / (radius + MARGIN).square())
        near = torch.cat([near[:, :OBJECT_SLOTS], torch.ones_like(near[:, OBJECT_SLOTS:])], dim=1) * there
        own = ((right * cosine + down * sine) / radius, (down * cosine - right * sine) / radius)
        parts = []
        for octave in OCTAVES:
            for axis in own:
                angle = axis.clamp(-FAR, FAR) * (math.pi * octave)
                parts += [angle.sin(), angle.cos()]
        parts += [near, *(part.expand_as(near) for part in (radius.log() + 1.75, cosine, sine))]
        return torch.stack(parts, dim=-1), near

    def layer_features(self, ground: Tensor) -> Tensor:
        """Where patches are on each layer of the ground (B, 1, T, V): (B, 1, T, N, LAYER_FEATURES), zeros if untold.

        Along each layer, and down, where both lie alike.
        """
        scale = GROUND_RADIUS / ground[..., 2:3].clamp(min=SMALLEST_RADIUS)
        along = (self.x - ground[..., :1]) * scale  # (B, 1, T, N), frame widths on the ground
        down = (self.y - ground[..., 1:2]) * scale
        places = [*(along + ground[..., THING_VALUES + layer, None] for layer in range(LAYERS)), down]
        parts = []
        for place in places:
            for waves in LAYER_WAVES:
                angle = place * (2 * math.pi * waves)
                parts += [angle.sin(), angle.cos()]
        return torch.stack(parts, dim=-1) * ground[..., None, -1:]
