"""Pieces of Pocket's transformers: norm, rotary positions, time embedding."""

import math

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis without a learned scale (modulation follows it)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding (Su et al. 2021) of x (B, heads, L, K) by the cosine and sine (L, K/2)."""
    cosine, sine = turn
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def rotary_angles(width: int, grid: tuple[int, int, int], prefix: int) -> Tensor:
    """Angles (prefix + L, width/2) of a head: a quarter of the pairs turn with time, the rest with height and width."""
    pairs = width // 2
    shares = (pairs // 4, (pairs - pairs // 4) // 2, pairs - pairs // 4 - (pairs - pairs // 4) // 2)
    axes = torch.meshgrid(*(torch.arange(n).float() for n in grid), indexing="ij")
    parts = []
    for axis, share in zip(axes, shares, strict=True):
        rates = (math.pi / 2) * 0.1 ** (torch.arange(share) / share)
        parts.append(axis.flatten()[:, None] * rates)
    video = torch.cat(parts, dim=1)  # (L, K/2)
    return torch.cat([torch.zeros(prefix, pairs), video])


def wave(t: Tensor) -> Tensor:
    """Sinusoidal embedding of t (B,) in [0, 1]: (B, 128)."""
    rates = torch.exp(-math.log(1000.0) * torch.arange(64, device=t.device) / 64) * 100.0
    angle = t[:, None].float() * rates
    return torch.cat([angle.cos(), angle.sin()], dim=1)
