"""Renderer of the Pocket world: attributes and a seed become clips of any size, anti-aliased and vectorised.

Shapes are signed distance fields (negative inside), so every size shows the same scene; coverage falls from one to
zero over one pixel. Frames are sampled at the middle of their interval, so frame i of an 8-frame clip shows the
same instant as frame 3i+1 of the 24-frame clip of the same scene.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.grammar import BACKGROUNDS, MOTIONS, SHAPES, Attributes

PALETTE = torch.tensor(
    [
        [0.90, 0.08, 0.10],  # red
        [1.00, 0.50, 0.02],  # orange
        [1.00, 0.90, 0.05],  # yellow
        [0.10, 0.80, 0.15],  # green
        [0.05, 0.88, 0.92],  # cyan
        [0.10, 0.20, 0.95],  # blue
        [0.55, 0.10, 0.80],  # purple
        [1.00, 0.45, 0.75],  # pink
        [0.98, 0.98, 0.98],  # white
    ]
)
RADIUS = torch.tensor([0.155, 0.195, 0.235])  # of the frame's width, by SIZES
JITTERS = 6  # uniform numbers in [0, 1) per scene: position, background details
WANDER = 0.06  # full range of a scene's random offset, of the frame's width
_TRAVEL = 0.22  # half the path of a straight motion, of the frame's width


@dataclass(frozen=True, slots=True)
class SceneBatch:
    """Ground truth of B scenes: `labels` (B, 5) int64 in the order of Attributes.indices, `jitter` (B, JITTERS)."""

    labels: Tensor
    jitter: Tensor

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def take(self, rows: slice) -> "SceneBatch":
        """The scenes of these rows."""
        return SceneBatch(self.labels[rows], self.jitter[rows])


def scene_batch(scenes: Sequence[Attributes], seed: int, device: str = "cpu") -> SceneBatch:
    """Attach seeded jitter to the scenes; the same seed and length give the same batch on every device."""
    generator = torch.Generator().manual_seed(seed)
    jitter = torch.rand(len(scenes), JITTERS, generator=generator)
    labels = torch.tensor([scene.indices() for scene in scenes], dtype=torch.long)
    return SceneBatch(labels.to(device), jitter.to(device))


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.95


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.82


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(y - 0.15, x.abs() * 0.866 - (y - 0.15) * 0.5) - 0.6


def _star(x: Tensor, y: Tensor) -> Tensor:
    outer, inner, half = 1.12, 0.48, math.pi / 5
    radius = torch.hypot(x, y)
    angle = torch.atan2(x, -y)
    folded = torch.remainder(angle + half, 2 * half) - half
    along, across = radius * folded.cos(), radius * folded.sin().abs()
    # Edge from the tip (outer, 0) to the notch (inner cos, inner sin).
    edge_x, edge_y = inner * math.cos(half) - outer, inner * math.sin(half)
    length = math.hypot(edge_x, edge_y)
    return ((along - outer) * edge_y - across * edge_x) / length


def _heart(x: Tensor, y: Tensor) -> Tensor:
    arm, centre = 0.86, 0.12
    tip = (x.abs() + (y - centre).abs() - arm) * 0.7071
    lobe = torch.hypot(x.abs() - arm / 2, y - centre + arm / 2) - arm * 0.7071
    return torch.minimum(tip, lobe)


def _diamond(x: Tensor, y: Tensor) -> Tensor:
    return (x.abs() / 0.72 + y.abs() / 1.12 - 1.0) * 0.605


def _cross(x: Tensor, y: Tensor) -> Tensor:
    a, b = x.abs(), y.abs()
    return torch.minimum(torch.maximum(a - 1.0, b - 0.35), torch.maximum(a - 0.35, b - 1.0))


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.74).abs() - 0.26


_SHAPE_FIELDS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _circle,
    _square,
    _triangle,
    _star,
    _heart,
    _diamond,
    _cross,
    _ring,
)


def trajectory(scenes: SceneBatch, tau: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centre x, centre y and radius (each (B, T), in frame widths) at clip times tau (T,) in [0, 1]."""
    motion = scenes.labels[:, 3:4]  # (B, 1)
    wander = (scenes.jitter[:, :2] - 0.5) * WANDER  # (B, 2)
    tau = tau[None, :]
    path = _TRAVEL * (1 - 2 * tau)  # (1, T): + to - over the clip
    spin = 2 * math.pi * (tau + 0.1 * scenes.jitter[:, 2:3])
    hop = 0.18 - 0.36 * torch.sin(2 * math.pi * tau).abs()
    zero = torch.zeros_like(path)

    def chosen(table: dict[str, Tensor], default: Tensor) -> Tensor:
        out = default.expand(len(scenes), -1)
        for name, value in table.items():
            out = torch.where(motion == MOTIONS.index(name), value, out)
        return out

    dx = chosen({"left": path, "right": -path, "orbit": 0.2 * spin.cos()}, zero)
    dy = chosen({"up": path, "down": -path, "orbit": 0.2 * spin.sin(), "bounce": hop}, zero)
    swell = chosen({"grow": 0.5 + 0.8 * tau, "shrink": 1.3 - 0.8 * tau}, zero + 1)
    radius = RADIUS.to(tau.device)[scenes.labels[:, 2]][:, None] * swell
    return 0.5 + wander[:, :1] + dx, 0.5 + wander[:, 1:] + dy, radius


def _mix(low: Tensor, high: Tensor, amount: Tensor) -> Tensor:
    """Blend colours (..., 3) by amount (...)."""
    return low + (high - low) * amount[..., None].clamp(0, 1)


def _rgb(red: float, green: float, blue: float, like: Tensor) -> Tensor:
    return torch.tensor([red, green, blue], device=like.device)


def _sunset(u: Tensor, v: Tensor, tau: Tensor, jitter: Tensor) -> Tensor:
    top, middle, low = _rgb(0.28, 0.10, 0.42, u), _rgb(0.93, 0.38, 0.30, u), _rgb(1.0, 0.78, 0.38, u)
    sky = _mix(_mix(top, middle, v * 1.9), low, (v - 0.5) * 2.6)
    hill = 0.88 + 0.03 * torch.sin(7 * u + 3.0 * jitter[..., 3])
    return _mix(sky, _rgb(0.20, 0.08, 0.18, u), (v - hill) * 60)


def _night(u: Tensor, v: Tensor, tau: Tensor, jitter: Tensor) -> Tensor:
    sky = _mix(_rgb(0.01, 0.02, 0.10, u), _rgb(0.07, 0.10, 0.30, u), v)
    glow = torch.zeros_like(u * v)
    for k in range(12):
        x = (0.13 + 0.618034 * k + 0.02 * jitter[..., 3]) % 1.0
        y = (0.07 + 0.381966 * k * k * 0.73 + 0.02 * jitter[..., 4]) % 1.0
        glow = torch.maximum(glow, 1.6 - torch.hypot(u - x, v - y) * 80)
    return _mix(sky, _rgb(0.95, 0.95, 0.85, u), glow)


def _sea(u: Tensor, v: Tensor, tau: Tensor, jitter: Tensor) -> Tensor:
    sky = _mix(_rgb(0.50, 0.75, 0.95, u), _rgb(0.85, 0.93, 0.98, u), v * 2.2)
    wave = torch.sin(2 * math.pi * (5 * v * v + 0.8 * u - tau + jitter[..., 3]))
    water = _mix(_rgb(0.04, 0.30, 0.50, u), _rgb(0.10, 0.48, 0.66, u), 0.5 + 0.5 * wave)
    return _mix(sky, water, (v - 0.42) * 60)


def _forest(u: Tensor, v: Tensor, tau: Tensor, jitter: Tensor) -> Tensor:
    sky = _mix(_rgb(0.70, 0.84, 0.74, u), _rgb(0.52, 0.70, 0.52, u), v)
    for count, height, red, green, blue in ((5.0, 0.25, 0.24, 0.44, 0.26), (4.0, 0.5, 0.08, 0.25, 0.12)):
        cell = torch.remainder(u * count + 0.5 * jitter[..., 3] + height * 3, 1.0)
        edge = height + 0.3 * (cell - 0.5).abs() * 2
        sky = _mix(sky, _rgb(red, green, blue, u), (v - edge) * 40)
    return sky


def _desert(u: Tensor, v: Tensor, tau: Tensor, jitter: Tensor) -> Tensor:
    sky = _mix(_rgb(0.45, 0.72, 0.92, u), _rgb(0.95, 0.88, 0.72, u), v * 2.4)
    far = 0.45 + 0.06 * torch.sin(6.3 * (u + 0.5 * jitter[..., 3]))
    near = 0.68 + 0.08 * torch.sin(5.0 * u + 3.0 * jitter[..., 4])
    sand = _mix(sky, _rgb(0.88, 0.72, 0.45, u), (v - far) * 60)
    return _mix(sand, _rgb(0.76, 0.56, 0.32, u), (v - near) * 60)


def _mountains(u: Tensor, v: Tensor, tau: Tensor, jitter: Tensor) -> Tensor:
    sky = _mix(_rgb(0.55, 0.68, 0.85, u), _rgb(0.80, 0.87, 0.94, u), v * 1.5)
    cell = torch.remainder(u * 2.0 + 0.5 * jitter[..., 3], 1.0)
    ridge = 0.22 + 0.75 * (cell - 0.5).abs()
    rock = _mix(sky, _rgb(0.40, 0.43, 0.52, u), (v - ridge) * 60)
    snow = (v - ridge) * 60 * ((0.44 - v) * 60).clamp(0, 1)
    return _mix(rock, _rgb(0.90, 0.93, 0.97, u), snow.clamp(0, 1))


def _city(u: Tensor, v: Tensor, tau: Tensor, jitter: Tensor) -> Tensor:
    sky = _mix(_rgb(0.36, 0.38, 0.55, u), _rgb(0.75, 0.62, 0.64, u), v * 1.4)
    place = u * 6 + 0.25 + 0.1 * jitter[..., 3]
    block = torch.floor(place)
    roof = 0.52 + 0.32 * torch.sin(block * 2.4) * torch.cos(block * 1.1)
    tower = ((v - roof) * 60).clamp(0, 1)
    gap = ((torch.remainder(place, 1.0) - 0.5).abs() < 0.44).float()
    walls = _mix(sky, _rgb(0.16, 0.17, 0.24, u), tower * gap + tower * (1 - gap) * 0.6)
    lit = (torch.remainder(place * 2, 1.0) > 0.4) & (torch.remainder(v * 12, 1.0) > 0.55) & (v > roof + 0.05)
    return _mix(walls, _rgb(0.93, 0.80, 0.40, u), lit.float() * gap * 0.8)


def _plain(u: Tensor, v: Tensor, tau: Tensor, jitter: Tensor) -> Tensor:
    return _mix(_rgb(0.62, 0.63, 0.65, u), _rgb(0.50, 0.51, 0.53, u), v + 0 * u)


_BACKDROPS = (_sunset, _night, _sea, _forest, _desert, _mountains, _city, _plain)
assert len(_BACKDROPS) == len(BACKGROUNDS) and len(_SHAPE_FIELDS) == len(SHAPES)


def render(scenes: SceneBatch, frames: int, height: int, width: int, only: Sequence[int] | None = None) -> Tensor:
    """Draw every scene: (B, frames, height, width, 3) uint8, sRGB values, on the batch's device.

    only: draw just these frames of the `frames` the clip has.
    """
    device = scenes.labels.device
    tau = (torch.arange(frames, device=device) + 0.5) / frames
    if only is not None:
        tau = tau[list(only)]
        frames = len(only)
    u = ((torch.arange(width, device=device) + 0.5) / width)[None, None, None, :]
    v = ((torch.arange(height, device=device) + 0.5) / height)[None, None, :, None]
    centre_x, centre_y, radius = (part[:, :, None, None] for part in trajectory(scenes, tau))
    local_x, local_y = (u - centre_x) / radius, (v - centre_y) / radius  # (B, T, 1, W), (B, T, H, 1)
    clip = torch.empty(len(scenes), frames, height, width, 3, device=device)
    for index, backdrop in enumerate(_BACKDROPS):
        rows = (scenes.labels[:, 4] == index).nonzero()[:, 0]
        if len(rows):
            jitter = scenes.jitter[rows][:, None, None, None, :]
            clip[rows] = backdrop(u, v, tau[None, :, None, None], jitter).expand(len(rows), frames, height, width, 3)
    paint = PALETTE.to(device)[scenes.labels[:, 1]][:, None, None, None, :]  # (B, 1, 1, 1, 3)
    for index, field in enumerate(_SHAPE_FIELDS):
        rows = (scenes.labels[:, 0] == index).nonzero()[:, 0]
        if len(rows):
            x, y = local_x[rows], local_y[rows]
            cover = (0.5 - field(x, y) * radius[rows] * width).clamp(0, 1)  # (b, T, H, W)
            shade = 1.0 - 0.16 * (y.clamp(-1, 1) + 1) / 2
            clip[rows] = _mix(clip[rows], paint[rows] * shade[..., None], cover)
    return (clip.clamp(0, 1) * 255).round().to(torch.uint8)
