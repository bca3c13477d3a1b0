"""Convolutional pieces of Pocket's upsamplers: temporal shift, conditioned block, doubler.

Time is mixed by shifting a part of the channels one frame forwards and backwards (temporal shift module, Lin et al.
2019), so all convolutions are two-dimensional.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
