"""Renderer of the Pocket world: scenes and a seed become clips of any size and length, with their ground truth.

Everything is in frame widths and clip times, so every size and length shows the same scene; edges are anti-aliased
over one pixel. Frames are sampled at the middle of their interval, so frame i of an 8-frame clip shows the same
instant as frame 3i+1 of the 24-frame clip of the same scene. A clip may begin later, where another of its scene had
long begun. The camera moves the background alone: objects keep their place in the picture, as with a camera that
follows them, so that "moves left" stays true under a pan.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core_cloud.models.layout import GROUND_RADIUS
from training import backdrops, shapes
from training.grammar import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    LIGHTINGS,
    MAX_OBJECTS,
    MOTIONS,
    SHAPES,
    TEXTURES,
    Scene,
)

PALETTE = torch.tensor(
    [
        [0.90, 0.08, 0.10],  # red
        [1.00, 0.50, 0.02],  # orange
        [1.00, 0.90, 0.05],  # yellow
        [0.10, 0.75, 0.15],  # green
        [0.05, 0.88, 0.92],  # cyan
        [0.10, 0.20, 0.95],  # blue
        [0.55, 0.10, 0.80],  # purple
        [1.00, 0.45, 0.75],  # pink
        [0.45, 0.24, 0.08],  # brown
        [0.98, 0.98, 0.98],  # white
        [0.52, 0.53, 0.55],  # grey
        [0.04, 0.04, 0.05],  # black
    ]
)
RADIUS = torch.tensor([0.14, 0.19, 0.25])  # of the frame's width, by SIZES, for one object
CROWD = torch.tensor([1.0, 0.78, 0.66])  # factor on radii by number of objects
_SPREAD = torch.tensor([0.0, 0.235, 0.27])  # distance of the objects' homes from the middle, by number
_TRAVEL = torch.tensor([0.22, 0.15, 0.12])  # half the path of a straight motion, by number
_OBJECT_LIGHT = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.87, 0.76], [0.60, 0.65, 0.86]])
_WORLD_LIGHT = torch.tensor([[1.0, 1.0, 1.0], [0.92, 0.66, 0.52], [0.30, 0.34, 0.55]])
_WORLD_GLOW = torch.tensor([[0.0, 0.0, 0.0], [0.10, 0.02, 0.06], [0.0, 0.0, 0.03]])
JITTERS = 12  # uniform numbers in [0, 1) per scene; `_*_JITTER` say which is which, the last are free
_HOME_JITTER, _TURN_JITTER, _PHASE_JITTER, _BACKDROP_JITTER = slice(0, 2), slice(2, 3), slice(3, 6), slice(6, 8)
SMALLEST_SHARE = 0.3  # of its radius, to which a shrinking object shrinks in a clip that begins later
WANDER = 0.16  # full range of the random offset of the middle, of the frame's width


@dataclass(frozen=True, slots=True)
class SceneBatch:
    """Ground truth of B scenes.

    things: (B, MAX_OBJECTS, 5) int64 in the order of OBJECT_ATTRIBUTES, -1 where there is no object; setting: (B, 3)
    int64 in the order of SCENE_ATTRIBUTES; jitter: (B, JITTERS) float32, what the caption leaves to the seed; begin:
    (B,) float32, when in its scene's time the clip begins, 0 for a clip of the whole.
    """

    things: Tensor
    setting: Tensor
    jitter: Tensor
    begin: Tensor

    def __len__(self) -> int:
        return int(self.setting.shape[0])

    @property
    def counts(self) -> Tensor:
        """Objects per scene, (B,) int64."""
        return (self.things[:, :, 0] >= 0).sum(1)

    def take(self, rows: slice | Tensor) -> "SceneBatch":
        """The scenes of these rows."""
        return SceneBatch(self.things[rows], self.setting[rows], self.jitter[rows], self.begin[rows])

    def to(self, device: str) -> "SceneBatch":
        """The same on a device."""
        return SceneBatch(*(part.to(device) for part in (self.things, self.setting, self.jitter, self.begin)))

    def moments(self, tau: Tensor) -> Tensor:
        """Times of every scene (B, T) at clip times tau (T,)."""
        return self.begin[:, None] + tau


@dataclass(frozen=True, slots=True)
class Path:
    """Where the objects are: centres x, y and radius in frame widths, angle in radians; each (B, MAX_OBJECTS, T)."""

    x: Tensor
    y: Tensor
    radius: Tensor
    angle: Tensor


@dataclass(frozen=True, slots=True)
class Rendering:
    """clip: (B, T, H, W, 3) uint8, sRGB; masks: (B, MAX_OBJECTS, T, H, W) float32, each object's visible share."""

    clip: Tensor
    masks: Tensor


def scene_batch(scenes: Sequence[Scene], seed: int, device: str = "cpu", *, begin: float = 0.0) -> SceneBatch:
    """Attach seeded jitter to the scenes; the same seed and length give the same batch on every device."""
    generator = torch.Generator().manual_seed(seed)
    jitter = torch.rand(len(scenes), JITTERS, generator=generator)
    things = torch.full((len(scenes), MAX_OBJECTS, 5), -1, dtype=torch.long)
    for row, scene in enumerate(scenes):
        things[row, : len(scene.things)] = torch.tensor([thing.indices() for thing in scene.things])
    setting = torch.tensor([scene.indices() for scene in scenes], dtype=torch.long)
    return SceneBatch(things, setting, jitter, torch.full((len(scenes),), begin)).to(device)


def clip_times(frames: int, device: str = "cpu") -> Tensor:
    """Instants of the frames of a clip, (T,) in (0, 1)."""
    return (torch.arange(frames, device=device) + 0.5) / frames


def trajectory(scenes: SceneBatch, tau: Tensor) -> Path:
    """Path of every object at clip times tau (T,); rows without an object hold values without meaning."""
    device = tau.device
    tau = scenes.moments(tau)[:, None]  # (B, 1, T)
    which = scenes.counts - 1  # (B,)
    travel = _TRAVEL.to(device)[which][:, None, None]  # (B, 1, 1)
    slot = torch.arange(MAX_OBJECTS, device=device)[None, :]
    turn = 2 * math.pi * (scenes.jitter[:, _TURN_JITTER] + slot / (which[:, None] + 1))  # (B, K)
    middle = 0.5 + (scenes.jitter[:, _HOME_JITTER] - 0.5) * WANDER  # (B, 2)
    spread = _SPREAD.to(device)[which][:, None]
    home_x, home_y = middle[:, :1] + spread * turn.cos(), middle[:, 1:] + spread * turn.sin()
    motion = scenes.things[:, :, 4, None]  # (B, K, 1)
    path = travel * (2 * tau - 1)  # (B, 1, T), from - to +
    phase = 2 * math.pi * (tau + scenes.jitter[:, _PHASE_JITTER, None])  # (B, K, T)
    hop = 0.75 * travel * (1 - 2 * torch.sin(2 * math.pi * tau).abs())
    weave = 0.5 * travel * (2 / math.pi) * torch.asin(torch.sin(4 * math.pi * tau))
    zero = torch.zeros_like(phase)
    circle_x, circle_y = 0.75 * travel * phase.cos(), 0.75 * travel * phase.sin()

    def chosen(table: dict[str, Tensor], default: Tensor) -> Tensor:
        out = default
        for name, value in table.items():
            out = torch.where(motion == MOTIONS.index(name), value, out)
        return out

    dx = {"left": -path, "right": path, "diagonal-up": path, "diagonal-down": path, "zigzag": path}
    dy = {"up": -path, "down": path, "diagonal-up": -path, "diagonal-down": path, "zigzag": weave, "bounce": hop}
    dx |= {"clockwise": circle_x, "anticlockwise": circle_x}
    dy |= {"clockwise": circle_y, "anticlockwise": -circle_y}
    swell = chosen({"grow": 0.55 + 0.8 * tau, "shrink": (1.35 - 0.8 * tau).clamp(min=SMALLEST_SHARE)}, zero + 1)
    size = scenes.things[:, :, 2].clamp(min=0)
    radius = (RADIUS.to(device)[size] * CROWD.to(device)[which][:, None])[:, :, None] * swell
    return Path(
        x=home_x[:, :, None] + chosen(dx, zero),
        y=home_y[:, :, None] + chosen(dy, zero),
        radius=radius,
        angle=chosen({"spin": math.pi * tau}, zero),
    )


def camera(scenes: SceneBatch, tau: Tensor) -> tuple[Tensor, Tensor]:
    """How far the camera has panned, in frame widths, and its zoom, each (B, T), at clip times tau (T,).

    The ground's point (p, q) is seen at (0.5 + zoom (p - 0.5 - pan), 0.5 + zoom (q - 0.5)).
    """
    move = scenes.setting[:, 1, None]  # (B, 1)
    when = scenes.moments(tau)
    pan = torch.where(move == CAMERAS.index("pan"), 0.3 * (when - 0.5), 0.0)
    zoom = torch.where(move == CAMERAS.index("zoom"), 1.0 + 0.5 * when, 1.0)
    return pan, zoom


def layers(scenes: SceneBatch) -> Tensor:
    """Where the two layers of every background lie along the ground, (B, 2) in frame widths."""
    return scenes.jitter[:, _BACKDROP_JITTER] - 0.5


def layouts(scenes: SceneBatch, tau: Tensor) -> Tensor:
    """Layouts (B, MAX_OBJECTS + 1, T, LAYOUT_VALUES) of the scenes at clip times tau, as the planner makes them."""
    path = trajectory(scenes, tau)
    there = (scenes.things[:, :, :1] >= 0).to(path.x.dtype).expand_as(path.x)
    values = (path.x, path.y, path.radius, path.angle.cos(), path.angle.sin(), torch.ones_like(there))
    things = torch.stack(values, dim=-1) * there[..., None]  # (B, MAX_OBJECTS, T, THING_VALUES)
    pan, zoom = camera(scenes, tau)
    one = torch.ones_like(pan)
    ground = torch.stack((0.5 - pan * zoom, 0.5 * one, GROUND_RADIUS * zoom, one, 0 * one, one), dim=-1)
    lie = torch.cat([layers(scenes), torch.ones_like(scenes.begin)[:, None]], dim=1)  # (B, 3)
    lie = lie[:, None, None].expand(-1, -1, len(tau), -1)  # (B, 1, T, 3)
    nowhere = lie.new_zeros(*things.shape[:3], lie.shape[-1])  # objects have no layers
    rows = torch.cat([things, ground[:, None]], dim=1)
    return torch.cat([rows, torch.cat([nowhere, lie], dim=1)], dim=-1)


def render(scenes: SceneBatch, frames: int, height: int, width: int, only: Sequence[int] | None = None) -> Rendering:
    """Draw every scene on the batch's device.

    only: draw just these frames of the `frames` the clip has.
    """
    device = scenes.jitter.device.type
    tau = clip_times(frames, device)
    if only is not None:
        tau = tau[list(only)]
    u = ((torch.arange(width, device=device) + 0.5) / width)[None, None, None, :]
    v = ((torch.arange(height, device=device) + 0.5) / height)[None, None, :, None]
    clip = _backdrop(scenes, u, v, tau)
    light = _OBJECT_LIGHT.to(device)[scenes.setting[:, 2]]  # (B, 3)
    path = trajectory(scenes, tau)
    masks = torch.zeros(len(scenes), MAX_OBJECTS, len(tau), height, width, device=device)
    for slot in range(MAX_OBJECTS):
        rows = (scenes.things[:, slot, 0] >= 0).nonzero()[:, 0]
        if len(rows):
            cover, second = _thing(scenes.take(rows), slot, path, rows, u, v)
            paint = PALETTE.to(device)[scenes.things[rows, slot, 1]]  # (b, 3)
            lit = light[rows][:, None, None, None, :]
            first, other = (colour[:, None, None, None, :] for colour in (paint, contrast(paint)))
            clip[rows] = backdrops.mix(clip[rows], backdrops.mix(first, other, second) * lit, cover)
            masks[rows] *= (1 - cover)[:, None]
            masks[rows, slot] = cover
    return Rendering(clip=(clip.clamp(0, 1) * 255).round().to(torch.uint8), masks=masks)


def contrast(paint: Tensor) -> Tensor:
    """Colour of rims, stripes and dots on an object of this colour (..., 3): darker, or lighter on dark paint."""
    luminance = (paint * paint.new_tensor([0.3, 0.59, 0.11])).sum(-1, keepdim=True)
    return torch.where(luminance > 0.27, paint * 0.38, paint + 0.55 * (1 - paint))


def _backdrop(scenes: SceneBatch, u: Tensor, v: Tensor, tau: Tensor) -> Tensor:
    """Lit backgrounds (B, T, H, W, 3) seen by the moving camera."""
    shape = (len(scenes), len(tau), v.shape[2], u.shape[3], 3)
    clip = torch.empty(shape, device=u.device)
    when = scenes.moments(tau)[:, :, None, None]
    pan, zoom = (part[:, :, None, None] for part in camera(scenes, tau))  # (B, T, 1, 1)
    seen_u, seen_v = 0.5 + (u - 0.5) / zoom + pan, 0.5 + (v - 0.5) / zoom  # (B, T, 1, W), (B, T, H, 1)
    for index, field in enumerate(backdrops.FIELDS):
        rows = (scenes.setting[:, 0] == index).nonzero()[:, 0]
        if len(rows):
            shift = layers(scenes)[rows, None, None, None]  # (b, 1, 1, 1, 2)
            clip[rows] = field(seen_u[rows], seen_v[rows], when[rows], shift)
    lighting = scenes.setting[:, 2]
    colour, glow = (table.to(u.device)[lighting][:, None, None, None, :] for table in (_WORLD_LIGHT, _WORLD_GLOW))
    return clip * colour + glow


def _thing(scenes: SceneBatch, slot: int, path: Path, rows: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage of one object per scene, and the share of it in the contrasting colour; both (b, T, H, W)."""
    x0, y0, radius, angle = (part[rows, slot][:, :, None, None] for part in (path.x, path.y, path.radius, path.angle))
    right, down = (u - x0) / radius, (v - y0) / radius  # (b, T, 1, W), (b, T, H, 1)
    x, y = right * angle.cos() + down * angle.sin(), down * angle.cos() - right * angle.sin()  # (b, T, H, W)
    pixels = radius * u.shape[3]  # pixels per unit of the object's own coordinates
    distance = torch.empty_like(x)
    for index, field in enumerate(shapes.FIELDS):
        chosen = (scenes.things[:, slot, 0] == index).nonzero()[:, 0]
        if len(chosen):
            distance[chosen] = field(x[chosen], y[chosen])
    second = (0.5 + (distance + shapes.RIM) * pixels).clamp(0, 1)
    for name, texture in (("striped", shapes.stripes), ("dotted", shapes.dots)):
        chosen = (scenes.things[:, slot, 3] == TEXTURES.index(name)).nonzero()[:, 0]
        if len(chosen):
            pattern = (0.5 - texture(x[chosen], y[chosen]) * pixels[chosen]).clamp(0, 1)
            second[chosen] = torch.maximum(second[chosen], pattern)
    return (0.5 - distance * pixels).clamp(0, 1), second


assert len(PALETTE) == len(COLOURS) and len(_WORLD_LIGHT) == len(LIGHTINGS)
assert len(shapes.FIELDS) == len(SHAPES) and len(backdrops.FIELDS) == len(BACKGROUNDS)
