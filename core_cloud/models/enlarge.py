"""Pocket's upsamplers in torch: low-resolution clips become full ones, in space and time, by convolution.

Time is mixed by shifting a part of the channels one frame forwards and backwards (temporal shift module, Lin et al.
2019), so all convolutions are two-dimensional. Both nets learn a residual over plain interpolation.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_cloud.models.convolution import ConvBlock
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
