"""Pocket's finder in torch: it finds the things that a caption names in given frames.

Image-to-video, extension and interpolation are given frames; where things go in the others is planned from where they
are in these. One small convolutional net looks at every frame by itself; what it looks for is told by the slots.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_cloud.models.layout import SMALLEST_RADIUS, centres
from core_cloud.models.reader import OBJECT_SLOTS

SHARP = 16.0  # scale of the likeness, which is a cosine, before its softmax


@dataclass(frozen=True, slots=True)
class FinderParams:
    """Shape of the finder: side of its frames in pixels, width of the slots and of its features."""

    size: int = 48
    slot_dim: int = 192
    channels: int = 64


class Finder(nn.Module):
    """Frames and slots -> where each object is, as rows of a layout with how sure that is as its presence."""

    x: Tensor
    y: Tensor

    def __init__(self, params: FinderParams) -> None:
        super().__init__()
        self.params = params
        channels = params.channels
        x, y = centres(params.size // 2, params.size // 2)
        self.register_buffer("x", x, persistent=False)
        self.register_buffer("y", y, persistent=False)
        self.stem = nn.Conv2d(3, channels, 5, stride=2, padding=2)
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.around = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.up = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.wanted = nn.Linear(params.slot_dim, channels)
        self.tell = nn.Sequential(nn.Linear(2 * channels + 1, channels), nn.SiLU(), nn.Linear(channels, 4))

    def forward(self, frames: Tensor, slots: Tensor) -> Tensor:
        """frames (B, T, H, W, 3) in [-1, 1], slots (B, SLOTS, slot_dim) -> (B, OBJECT_SLOTS, T, THING_VALUES).

        The last of the values is the logit of presence.
        """
        batch, count = frames.shape[:2]
        fine = F.silu(self.stem(frames.permute(0, 1, 4, 2, 3).flatten(0, 1)))  # (B*T, C, h, w)
        wide = F.silu(self.down(fine))
        for layer in self.around:
            wide = wide + F.silu(layer(wide))
        wide = F.interpolate(wide, scale_factor=2.0, mode="nearest")
        features = self.up(torch.cat([fine, wide], dim=1)).flatten(2).transpose(1, 2)  # (B*T, P, C)
        features = features.view(batch, count, -1, features.shape[-1])  # (B, T, P, C)
        wanted = self.wanted(slots[:, :OBJECT_SLOTS])[:, None]  # (B, 1, K, C)
        likeness = F.normalize(wanted, dim=-1) @ F.normalize(features, dim=-1).transpose(2, 3)  # (B, T, K, P)
        share = (SHARP * likeness).softmax(-1)
        x, y = share @ self.x, share @ self.y  # (B, T, K)
        there = share @ features  # (B, T, K, C)
        about = torch.cat([there, wanted.expand_as(there), likeness.amax(-1, keepdim=True)], dim=-1)
        radius, cosine, sine, sure = self.tell(about).unbind(-1)  # (B, T, K) each
        cosine, sine = F.normalize(torch.stack([cosine + 0.5, sine]), dim=0)
        found = torch.stack([x, y, (radius - 1.75).exp() + SMALLEST_RADIUS, cosine, sine, sure], dim=-1)
        return found.transpose(1, 2)
