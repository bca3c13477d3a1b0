"""Backgrounds of the Pocket world: colour fields over the plane that move slowly, wider than the frame for the camera.

Each function takes u (b, T, 1, W) and v (b, T, H, 1) in frame widths and heights, the scenes' times tau (b, T, 1, 1)
and where along u its two layers lie, in frame widths (b, 1, 1, 1, 2), and gives daylight colours (b, T, H, W, 3) in
about [0, 1]. Every one varies along u, so that a panning camera shows.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor


def mix(low: Tensor, high: Tensor, amount: Tensor) -> Tensor:
    """Blend colours (..., 3) by amount (...), clamped to [0, 1]."""
    return low + (high - low) * amount[..., None].clamp(0, 1)


def _rgb(red: float, green: float, blue: float, like: Tensor) -> Tensor:
    return torch.tensor([red, green, blue], device=like.device)


def sky(u: Tensor, v: Tensor, tau: Tensor, shift: Tensor) -> Tensor:
    """Blue with drifting clouds."""
    base = mix(_rgb(0.25, 0.50, 0.90, u), _rgb(0.68, 0.83, 0.97, u), v + 0 * u)
    drift = (u + shift[..., 0]) * 1.4 + 0.10 * tau
    puff = torch.sin(2 * math.pi * drift) * torch.sin(2 * math.pi * (v * 1.8 + 0.15 * torch.sin(9.0 * drift)))
    return mix(base, _rgb(0.97, 0.98, 1.0, u), (puff - 0.2) * 2.5)


def sea(u: Tensor, v: Tensor, tau: Tensor, shift: Tensor) -> Tensor:
    """Horizon, sky and rolling waves."""
    air = mix(_rgb(0.55, 0.78, 0.95, u), _rgb(0.85, 0.93, 0.98, u), v * 2.2)
    wave = torch.sin(2 * math.pi * (4.5 * v * v + 1.6 * (u + shift[..., 0]) - tau))
    water = mix(_rgb(0.03, 0.28, 0.48, u), _rgb(0.12, 0.50, 0.68, u), 0.5 + 0.5 * wave)
    return mix(air, water, (v - 0.42) * 60)


def forest(u: Tensor, v: Tensor, tau: Tensor, shift: Tensor) -> Tensor:
    """Two rows of firs that sway a little."""
    out = mix(_rgb(0.70, 0.84, 0.74, u), _rgb(0.52, 0.70, 0.52, u), v + 0 * u)
    sway = 0.03 * torch.sin(2 * math.pi * tau)
    rows = ((5.0, 0.25, _rgb(0.24, 0.44, 0.26, u)), (4.0, 0.5, _rgb(0.08, 0.25, 0.12, u)))
    for layer, (count, height, green) in enumerate(rows):
        cell = torch.remainder((u + shift[..., layer]) * count + height * 3 + sway, 1.0)
        edge = height + 0.3 * (cell - 0.5).abs() * 2
        out = mix(out, green, (v - edge) * 40)
    return out


def desert(u: Tensor, v: Tensor, tau: Tensor, shift: Tensor) -> Tensor:
    """Two lines of dunes under a pale sky."""
    air = mix(_rgb(0.48, 0.73, 0.92, u), _rgb(0.95, 0.90, 0.78, u), v * 2.2)
    far = 0.45 + 0.07 * torch.sin(8.0 * (u + shift[..., 0]))
    near = 0.68 + 0.08 * torch.sin(6.0 * (u + shift[..., 1]) + 0.3 * tau)
    sand = mix(air, _rgb(0.90, 0.75, 0.48, u), (v - far) * 60)
    return mix(sand, _rgb(0.78, 0.58, 0.34, u), (v - near) * 60)


def mountains(u: Tensor, v: Tensor, tau: Tensor, shift: Tensor) -> Tensor:
    """Snow-capped peaks, haze drifting in front."""
    air = mix(_rgb(0.55, 0.68, 0.85, u), _rgb(0.80, 0.87, 0.94, u), v * 1.5)
    cell = torch.remainder((u + shift[..., 0]) * 2.0, 1.0)
    ridge = 0.22 + 0.75 * (cell - 0.5).abs()
    rock = mix(air, _rgb(0.40, 0.43, 0.52, u), (v - ridge) * 60)
    snow = ((v - ridge) * 60).clamp(0, 1) * ((0.44 - v) * 60).clamp(0, 1)
    rock = mix(rock, _rgb(0.92, 0.95, 0.98, u), snow)
    haze = 0.5 + 0.5 * torch.sin(2 * math.pi * (u + shift[..., 1] + 0.15 * tau))
    return mix(rock, _rgb(0.62, 0.66, 0.72, u), (v - 0.7) * 2.0 * haze)


def city(u: Tensor, v: Tensor, tau: Tensor, shift: Tensor) -> Tensor:
    """Towers with lit windows."""
    air = mix(_rgb(0.52, 0.58, 0.74, u), _rgb(0.80, 0.74, 0.74, u), v * 1.4)
    place = (u + shift[..., 0]) * 5
    block = torch.floor(place)
    roof = 0.50 + 0.30 * torch.sin(block * 2.4) * torch.cos(block * 1.1)
    tower = ((v - roof) * 60).clamp(0, 1)
    gap = ((torch.remainder(place, 1.0) - 0.5).abs() < 0.44).float()
    walls = mix(air, _rgb(0.22, 0.24, 0.34, u), tower * gap + tower * (1 - gap) * 0.6)
    blink = torch.sin(2 * math.pi * (tau + 0.37 * block)) > -0.9
    lit = (torch.remainder(place * 2, 1.0) > 0.4) & (torch.remainder(v * 10, 1.0) > 0.5) & (v > roof + 0.05) & blink
    return mix(walls, _rgb(0.95, 0.82, 0.42, u), lit.float() * gap * 0.85)


def meadow(u: Tensor, v: Tensor, tau: Tensor, shift: Tensor) -> Tensor:
    """Grass with flowers under a light sky, bending in the wind."""
    air = mix(_rgb(0.62, 0.82, 0.98, u), _rgb(0.90, 0.96, 0.98, u), v * 3.0)
    hill = 0.30 + 0.05 * torch.sin(5.0 * (u + shift[..., 0]))
    blade = torch.sin(2 * math.pi * (6.0 * (u + shift[..., 1]) + 0.5 * v + 0.25 * torch.sin(2 * math.pi * (tau + v))))
    grass = mix(_rgb(0.30, 0.62, 0.16, u), _rgb(0.46, 0.76, 0.24, u), 0.5 + 0.5 * blade)
    out = mix(air, grass, (v - hill) * 60)
    x = torch.remainder((u + shift[..., 1]) * 4 + 0.5 * torch.floor(v * 5), 1.0) - 0.5
    y = torch.remainder(v * 5, 1.0) - 0.5
    flower = (0.17 - torch.hypot(x, y)) * 14 * (v > hill + 0.08).float()
    return mix(out, _rgb(0.98, 0.90, 0.55, u), flower)


def snow(u: Tensor, v: Tensor, tau: Tensor, shift: Tensor) -> Tensor:
    """A white field, a grey sky and falling flakes."""
    hill = 0.60 + 0.07 * torch.sin(6.0 * (u + shift[..., 0]))
    out = mix(_rgb(0.50, 0.56, 0.66, u), _rgb(0.66, 0.71, 0.79, u), v * 1.5)
    out = mix(out, _rgb(0.90, 0.93, 0.97, u), (v - hill) * 60)
    x = torch.remainder((u + shift[..., 1]) * 5 + 0.5 * torch.floor(v * 4 - 0.75 * tau), 1.0) - 0.5
    y = torch.remainder(v * 4 - 0.75 * tau, 1.0) - 0.5
    return mix(out, _rgb(1.0, 1.0, 1.0, u), (0.20 - torch.hypot(x, y)) * 12)


def space(u: Tensor, v: Tensor, tau: Tensor, shift: Tensor) -> Tensor:
    """Stars before a violet nebula."""
    far = u + shift[..., 0]
    cloud = torch.sin(4.0 * far + 3.0 * v) * torch.cos(3.0 * far - 5.0 * v + 0.8 * tau)
    out = mix(_rgb(0.03, 0.03, 0.10, u), _rgb(0.26, 0.12, 0.40, u), 0.5 + 0.5 * cloud)
    row = torch.floor(v * 5)
    x = torch.remainder((u + shift[..., 1]) * 5 + 0.38 * row * row, 1.0) - 0.5
    y = torch.remainder(v * 5, 1.0) - 0.5
    twinkle = 0.75 + 0.25 * torch.sin(2 * math.pi * (tau + 0.3 * row))
    return mix(out, _rgb(0.95, 0.95, 0.88, u), (0.14 - torch.hypot(x, y)) * 16 * twinkle)


def plain(u: Tensor, v: Tensor, tau: Tensor, shift: Tensor) -> Tensor:
    """A beige wall with soft vertical panels and a slow sheen."""
    panel = torch.sin(2 * math.pi * 1.5 * (u + shift[..., 0])) + 0 * v
    wall = mix(_rgb(0.70, 0.65, 0.56, u), _rgb(0.84, 0.80, 0.71, u), 0.5 + 0.5 * panel)
    sheen = torch.sin(2 * math.pi * (0.5 * v + 0.4 * tau + shift[..., 1]))
    return wall * (1.0 - 0.08 * v + 0.03 * sheen)[..., None]


FIELDS: tuple[Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], ...] = (
    sky,
    sea,
    forest,
    desert,
    mountains,
    city,
    meadow,
    snow,
    space,
    plain,
)
