"""Pocket's upsamplers in torch: low-resolution clips become full ones, in space and time, by convolution.

Time is mixed by shifting a part of the channels one frame forwards and backwards (temporal shift module, Lin et al.
2019), so all convolutions are two-dimensional. Both nets learn a residual over plain interpolation.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_cloud.models.reader import SLOTS

LOW, MIDDLE = 48, 64  # sides of the input and of the features before the last shuffle
SHUFFLE = 2
HIGH = MIDDLE * SHUFFLE


@dataclass(frozen=True, slots=True)
class UpsamplerParams:
    """Shape of the space-time upsampler: 48 to 128 pixels in space, times `stretch` in time."""

    channels: int = 48
    depth: int = 5
    stretch: int = 3
    slot_dim: int = 192


def shift_time(x: Tensor, frames: int) -> Tensor:
    """Replace an eighth of the channels by those of the previous frame, an eighth by the next one's; (B*T, C, H, W)."""
    _, channels, height, width = x.shape
    part = channels // 8
    clip = x.view(-1, frames, channels, height, width)
    before = torch.cat([clip[:, :1, :part], clip[:, :-1, :part]], dim=1)
    after = torch.cat([clip[:, 1:, part : 2 * part], clip[:, -1:, part : 2 * part]], dim=1)
    return torch.cat([before, after, clip[:, :, 2 * part :]], dim=2).view(-1, channels, height, width)


class ConvBlock(nn.Module):
    """Residual pair of 3x3 convolutions with temporal shift; scale and shift between them come from the text."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, condition: Tensor, frames: int) -> Tensor:
        """x (B*T, C, H, W), condition (B, K)."""
        h = self.first(shift_time(x, frames))
        film = self.film(condition)[:, None].expand(-1, frames, -1).reshape(x.shape[0], -1, 1, 1)
        scale, offset = film.chunk(2, dim=1)  # (B*T, C, 1, 1)
        out: Tensor = x + self.second(F.silu(h * (1 + scale) + offset))
        return out


class SpaceTimeUpsampler(nn.Module):
    """(B, T, h, w, 3) -> (B, stretch T, 8/3 h, 8/3 w, 3), conditioned on the text and the noise level of its input.

    The blocks work at the input's resolution; features are then stretched by 4/3 and shuffled by two.
    """

    def __init__(self, params: UpsamplerParams) -> None:
        super().__init__()
        self.params = params
        condition = 128
        self.mix = nn.Sequential(nn.Linear(SLOTS * params.slot_dim + 1, condition), nn.SiLU())
        self.stem = nn.Conv2d(3, params.channels, 3, padding=1)
        self.blocks = nn.ModuleList(ConvBlock(params.channels, condition) for _ in range(params.depth))
        self.middle = nn.Conv2d(params.channels, params.channels, 3, padding=1)
        self.head = nn.Conv2d(params.channels, params.stretch * 3 * SHUFFLE**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def forward(self, low: Tensor, level: Tensor, slots: Tensor) -> Tensor:
        """low in [-1, 1] with noise of standard deviation level (B,) added, slots (B, SLOTS, slot_dim)."""
        p = self.params
        _, frames, height, width, _ = low.shape
        middle = (height * MIDDLE // LOW, width * MIDDLE // LOW)
        full = (middle[0] * SHUFFLE, middle[1] * SHUFFLE)
        condition = self.mix(torch.cat([slots.flatten(1), level[:, None]], dim=1))  # (B, 128)
        flat = low.permute(0, 1, 4, 2, 3).reshape(-1, 3, height, width)  # (B*T, 3, h, w)
        x = self.stem(flat)  # (B*T, C, h, w)
        for block in self.blocks:
            x = block(x, condition, frames)
        x = F.interpolate(F.silu(x), size=middle, mode="bilinear")  # (B*T, C, 4/3 h, 4/3 w)
        detail = F.pixel_shuffle(self.head(F.silu(self.middle(x))), SHUFFLE)  # (B*T, stretch*3, H, W)
        smooth = F.interpolate(flat, size=full, mode="bilinear")  # (B*T, 3, H, W)
        smooth = smooth[:, None].expand(-1, p.stretch, -1, -1, -1)
        out = smooth + detail.view(-1, p.stretch, 3, *full)  # (B*T, stretch, 3, H, W)
        clip: Tensor = out.reshape(-1, frames * p.stretch, 3, *full).permute(0, 1, 3, 4, 2)
        return clip


@dataclass(frozen=True, slots=True)
class SharpenerParams:
    """Shape of the frame doubler."""

    channels: int = 32
    depth: int = 3


class FrameDoubler(nn.Module):
    """(N, H, W, 3) -> (N, 2H, 2W, 3), frame by frame."""

    def __init__(self, params: SharpenerParams) -> None:
        super().__init__()
        self.params = params
        self.stem = nn.Conv2d(3, params.channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(params.channels, params.channels, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(params.channels, params.channels, 3, padding=1),
            )
            for _ in range(params.depth)
        )
        self.head = nn.Conv2d(params.channels, 4 * 3, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def forward(self, frames: Tensor) -> Tensor:
        """frames in [-1, 1]; see the class for the shapes."""
        flat = frames.permute(0, 3, 1, 2)  # (N, 3, H, W)
        x = self.stem(flat)
        for block in self.blocks:
            x = x + block(x)
        detail = F.pixel_shuffle(self.head(F.silu(x)), 2)  # (N, 3, 2H, 2W)
        out = F.interpolate(flat, scale_factor=2.0, mode="bilinear") + detail
        return out.permute(0, 2, 3, 1)


def parameter_count(model: nn.Module) -> int:
    """Number of learned values."""
    return sum(math.prod(value.shape) for value in model.parameters())
