"""Pocket's upsamplers in torch: low-resolution clips become full ones, in space and time, by convolution.

Time is mixed by shifting a part of the channels one frame forwards and backwards (temporal shift module, Lin et al.
2019), so all convolutions are two-dimensional. Both nets learn a residual over plain interpolation.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_cloud.models.convolution import ConvBlock
from core_cloud.models.text_pool import WIDTH, Standardise, TextPool

SCALE = 4  # in height and width


@dataclass(frozen=True, slots=True)
class UpsamplerParams:
    """Shape of the space-time upsampler: x4 in space, `stretch` in time."""

    channels: int = 64
    depth: int = 6
    stretch: int = 3
    text_dim: int = 384
    queries: int = 4


class SpaceTimeUpsampler(nn.Module):
    """(B, T, H, W, 3) -> (B, stretch T, 4 H, 4 W, 3), conditioned on the text and the noise level of its input."""

    def __init__(self, params: UpsamplerParams) -> None:
        super().__init__()
        self.params = params
        condition = 128
        self.standardise = Standardise(params.text_dim)
        self.pool = TextPool(params.text_dim, params.queries)
        self.mix = nn.Sequential(nn.Linear(params.queries * WIDTH + 1, condition), nn.SiLU())
        self.stem = nn.Conv2d(3, params.channels, 3, padding=1)
        self.blocks = nn.ModuleList(ConvBlock(params.channels, condition) for _ in range(params.depth))
        self.head = nn.Conv2d(params.channels, params.stretch * 3 * SCALE**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def forward(self, low: Tensor, level: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """low in [-1, 1] with noise of standard deviation level (B,) added; see the class for the shapes."""
        p = self.params
        _, frames, height, width, _ = low.shape
        text = self.pool(self.standardise(tokens), mask)  # (B, queries * WIDTH)
        condition = self.mix(torch.cat([text, level[:, None]], dim=1))  # (B, 128)
        flat = low.permute(0, 1, 4, 2, 3).reshape(-1, 3, height, width)  # (B*T, 3, H, W)
        x = self.stem(flat)  # (B*T, C, H, W)
        for block in self.blocks:
            x = block(x, condition, frames)
        detail = F.pixel_shuffle(self.head(F.silu(x)), SCALE)  # (B*T, stretch*3, 4H, 4W)
        detail = detail.reshape(-1, 3, SCALE * height, SCALE * width)  # (B*T*stretch, 3, 4H, 4W)
        smooth = F.interpolate(flat, scale_factor=float(SCALE), mode="bilinear")  # (B*T, 3, 4H, 4W)
        smooth = smooth[:, None].expand(-1, p.stretch, -1, -1, -1).reshape(-1, 3, SCALE * height, SCALE * width)
        out = (smooth + detail).view(-1, frames * p.stretch, 3, SCALE * height, SCALE * width)
        return out.permute(0, 1, 3, 4, 2)
