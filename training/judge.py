"""The judge: a network that reads from a clip which objects it shows, what they are, how they move, and where.

Objects of one scene differ in colour, so the colour is the key: twelve learned queries, one per colour, look at every
frame and say whether an object of theirs is there, what it is and where its middle and edge are (the tracker). It is
trained on renders only, with seeds of its own; what it reads on held-out renders bounds what it can say of made clips.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.grammar import COLOURS, MAX_OBJECTS, OBJECT_CLASSES, SCENE_CLASSES

FRAMES, SIDE = 8, 64
WIDTH = 128
KEYED = tuple(count for index, count in enumerate(OBJECT_CLASSES) if index != 1)  # all but the colour itself


@dataclass(frozen=True, slots=True)
class Reading:
    """What the judge says of B clips.

    present (B, 12) logits by colour; objects: logits (B, 12, n) of shape, size, texture, motion by colour; setting:
    logits (B, n) of background, camera, lighting; tracks (B, 12, T, 3) x, y, radius in frame widths; features (B, F)
    for distances between distributions of clips.
    """

    present: Tensor
    objects: list[Tensor]
    setting: list[Tensor]
    tracks: Tensor
    features: Tensor


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.inner(x))


class Judge(nn.Module):
    """Clips (B, FRAMES, SIDE, SIDE, 3) in [-1, 1] -> Reading."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, WIDTH)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.SiLU(),
            ]
        self.trunk = nn.Sequential(*layers, Residual(WIDTH), Residual(WIDTH))  # (N, WIDTH, 8, 8)
        self.place = nn.Parameter(torch.randn(64, WIDTH) * 0.1)
        self.queries = nn.Parameter(torch.randn(len(COLOURS), WIDTH) * 0.3)
        self.key, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.track = nn.Sequential(nn.Linear(WIDTH + 2, 64), nn.SiLU(), nn.Linear(64, 3))
        self.over_time = nn.Sequential(
            nn.Linear(FRAMES * (WIDTH + 2 + 3), 384), nn.SiLU(), nn.Linear(384, 256), nn.SiLU()
        )
        self.present = nn.Linear(256, 1)
        self.objects = nn.ModuleList(nn.Linear(256, count) for count in KEYED)
        self.narrow = nn.Conv2d(WIDTH, 12, 1)
        self.whole = nn.Sequential(nn.Linear(2 * WIDTH + FRAMES * 12 * 16, 256), nn.SiLU())
        self.setting = nn.ModuleList(nn.Linear(256, count) for count in SCENE_CLASSES)
        grid = (torch.arange(8) + 0.5) / 8
        self.register_buffer("grid", torch.cartesian_prod(grid, grid).flip(1), persistent=False)  # (64, 2) as x, y

    grid: Tensor

    def forward(self, clip: Tensor) -> Reading:
        """See the class."""
        count = clip.shape[0]
        maps = self.trunk(clip.flatten(0, 1).permute(0, 3, 1, 2))  # (B*T, WIDTH, 8, 8)
        cells = maps.flatten(2).transpose(1, 2) + self.place  # (B*T, 64, WIDTH)
        scores = self.queries @ self.key(cells).transpose(1, 2) / WIDTH**0.5  # (B*T, 12, 64)
        share = scores.softmax(-1)
        seen = torch.cat([share @ self.value(cells), share @ self.grid], dim=-1)  # (B*T, 12, WIDTH + 2)
        step = self.track(seen)
        tracks = torch.cat([seen[..., -2:] + 0.1 * step[..., :2], 0.2 + 0.1 * step[..., 2:]], dim=-1)  # (B*T, 12, 3)
        story = torch.cat([seen, tracks], dim=-1).view(count, FRAMES, len(COLOURS), -1)
        story = self.over_time(story.transpose(1, 2).flatten(2))  # (B, 12, 256)
        layout = F.avg_pool2d(self.narrow(maps), 2).reshape(count, -1)  # (B, T*12*16)
        pooled = maps.view(count, FRAMES, WIDTH, 64)
        whole = self.whole(torch.cat([pooled.mean((1, 3)), pooled.amax((1, 3)), layout], dim=1))
        present = self.present(story)[..., 0]  # (B, 12)
        most = (present.sigmoid()[..., None] * story).sum(1)
        return Reading(
            present=present,
            objects=[head(story) for head in self.objects],
            setting=[head(whole) for head in self.setting],
            tracks=tracks.view(count, FRAMES, len(COLOURS), 3).transpose(1, 2),
            features=torch.cat([whole, most], dim=1),
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """Hard readings of B clips, the objects sorted by how sure the judge is of them.

    things (B, MAX_OBJECTS, 5) in the order of OBJECT_ATTRIBUTES; sure (B, MAX_OBJECTS) probability that the object is
    there; setting (B, 3); tracks (B, MAX_OBJECTS, T, 3); features (B, F).
    """

    things: Tensor
    sure: Tensor
    setting: Tensor
    tracks: Tensor
    features: Tensor

    @property
    def counts(self) -> Tensor:
        """Objects that are more likely there than not, (B,)."""
        return (self.sure > 0.5).sum(1)


def hard(reading: Reading) -> Seen:
    """The likeliest values, and the MAX_OBJECTS likeliest objects."""
    sure, colours = reading.present.sigmoid().topk(MAX_OBJECTS, dim=1)  # (B, K)
    parts = []
    for logits in reading.objects:
        picked = logits.gather(1, colours[..., None].expand(-1, -1, logits.shape[2]))  # (B, K, n)
        parts.append(picked.argmax(-1))
    things = torch.stack([parts[0], colours, *parts[1:]], dim=-1)
    index = colours[..., None, None].expand(-1, -1, FRAMES, 3)
    setting = torch.stack([logits.argmax(-1) for logits in reading.setting], dim=1)
    return Seen(things, sure, setting, reading.tracks.gather(1, index), reading.features)


def judge_input(clips: Tensor) -> Tensor:
    """Clips (B, T, H, W, 3) uint8, T a multiple of 8, H and W of 64 -> the judge's (B, 8, 64, 64, 3) in [-1, 1].

    Each frame is the mean over its interval's middle, as the renderer samples it, and each pixel over its square.
    """
    step = clips.shape[1] // FRAMES
    middle = (step - 1) // 2
    picked = (
        clips[:, middle::step] if step % 2 else clips[:, middle::step].float().add(clips[:, middle + 1 :: step]) / 2
    )
    flat = picked.float().flatten(0, 1).permute(0, 3, 1, 2)  # (B*T, 3, H, W)
    small = F.adaptive_avg_pool2d(flat, SIDE).permute(0, 2, 3, 1)
    ready: Tensor = small.reshape(len(clips), FRAMES, SIDE, SIDE, 3) / 127.5 - 1.0
    return ready
