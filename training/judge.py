"""The judge: a network that reads from a clip which objects it shows, what they are, how they move, and where.

Objects of one scene differ in colour, so the colour is the key: twelve learned queries, one per colour, look at every
frame and say whether an object of theirs is there and where its middle and edge are (the tracker). Windows around the
likeliest objects are then cut out of the finest features to say what they are. It is trained on renders only, with
seeds of its own; what it reads on held-out renders bounds what it can say of made clips.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.grammar import COLOURS, MAX_OBJECTS, OBJECT_CLASSES, SCENE_CLASSES

FRAMES, SIDE = 8, 64
WIDTH = 128
WINDOW = 9  # samples along each side of the window that is cut out around an object
REACH = 1.35  # half of that window in radii of the object
KEYED = tuple(count for index, count in enumerate(OBJECT_CLASSES) if index != 1)  # all but the colour itself


@dataclass(frozen=True, slots=True)
class Reading:
    """What the judge says of B clips.

    present (B, 12) logits by colour; colours (B, K) the objects that were looked at closely, K = MAX_OBJECTS; objects:
    logits (B, K, n) of their shape, size, texture, motion; tracks (B, 12, T, 3) x, y, radius in frame widths by colour;
    setting: logits (B, n) of background, camera, lighting; features (B, F) for distances between sets of clips.
    """

    present: Tensor
    colours: Tensor
    objects: list[Tensor]
    setting: list[Tensor]
    tracks: Tensor
    features: Tensor


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(_conv(width, width, 1), nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.inner(x))


def _conv(before: int, after: int, stride: int) -> nn.Sequential:
    """3x3 convolution, norm and SiLU."""
    layer = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after), nn.SiLU())


class Finder(nn.Module):
    """Looks for an object of each colour in single frames: maps (N, WIDTH, 8, 8) -> features and x, y, radius."""

    grid: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(64, WIDTH) * 0.1)
        self.queries = nn.Parameter(torch.randn(len(COLOURS), WIDTH) * 0.3)
        self.key, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.track = nn.Sequential(nn.Linear(WIDTH + 2, 64), nn.SiLU(), nn.Linear(64, 3))
        grid = (torch.arange(8) + 0.5) / 8
        self.register_buffer("grid", torch.cartesian_prod(grid, grid).flip(1), persistent=False)  # (64, 2) as x, y

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, 12, WIDTH) and tracks (N, 12, 3)."""
        cells = maps.flatten(2).transpose(1, 2) + self.place  # (N, 64, WIDTH)
        share = (self.queries @ self.key(cells).transpose(1, 2) / WIDTH**0.5).softmax(-1)  # (N, 12, 64)
        seen, where = share @ self.value(cells), share @ self.grid  # (N, 12, WIDTH), (N, 12, 2)
        step = self.track(torch.cat([seen, where], dim=-1))
        return seen, torch.cat([where + 0.1 * step[..., :2], 0.18 + 0.1 * step[..., 2:]], dim=-1)


class CloseLook(nn.Module):
    """Names shape, size, texture and motion of single objects from windows around them and from their tracks."""

    def __init__(self) -> None:
        super().__init__()
        self.window = nn.Sequential(_conv(35, 48, 1), _conv(48, 64, 2), _conv(64, 64, 2), nn.Flatten())
        self.frame = nn.Sequential(nn.Linear(64 * 9, WIDTH), nn.SiLU())
        self.story = nn.Sequential(nn.Linear(FRAMES * (32 + 3) + 2, 256), nn.SiLU(), nn.Linear(256, WIDTH), nn.SiLU())
        self.short = nn.Linear(WIDTH, 32)
        self.heads = nn.ModuleList(nn.Linear(3 * WIDTH, count) for count in KEYED)

    def forward(self, fine: Tensor, tracks: Tensor, count: Tensor) -> list[Tensor]:
        """fine (B, T, C, 32, 32), tracks (B, K, T, 3), count (B,) objects in the scene -> logits (B, K, n)."""
        batch, objects = tracks.shape[:2]
        windows = cut_out(fine, tracks)  # (B*K*T, C, WINDOW, WINDOW)
        frames = self.frame(self.window(windows)).reshape(batch, objects, FRAMES, WIDTH)
        moves, size = told_apart(tracks)
        story = torch.cat([self.short(frames), moves], dim=-1).flatten(2)  # (B, K, T*35)
        story = self.story(torch.cat([story, size, count[:, None, None].expand(-1, objects, 1)], dim=-1))
        both = torch.cat([frames.mean(2), frames.amax(2), story], dim=-1)  # (B, K, 3 WIDTH)
        return [head(both) for head in self.heads]


def told_apart(tracks: Tensor) -> tuple[Tensor, Tensor]:
    """Tracks (B, K, T, 3) as movement and growth about their own means (B, K, T, 3), and size (B, K, 1); unit range.

    Where a path lies says nothing of its kind: without this, the network has to learn every motion at every place.
    """
    radius = tracks[..., 2:].clamp(min=0.03).log()
    size = radius.mean(2)  # (B, K, 1)
    moves = torch.cat([tracks[..., :2] - tracks[..., :2].mean(2, keepdim=True), radius - size[:, :, None]], dim=-1)
    return 6.0 * moves, 3.0 * (size + 1.8)


def cut_out(fine: Tensor, tracks: Tensor) -> Tensor:
    """Windows of REACH radii around tracks (B, K, T, 3) out of maps (B, T, C, H, W): (B*K*T, C, WINDOW, WINDOW)."""
    objects = tracks.shape[1]
    line = torch.linspace(-REACH, REACH, WINDOW, device=fine.device)
    offsets = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)  # (WINDOW, WINDOW, 2) as x, y
    centre, radius = tracks[..., None, None, :2], tracks[..., None, None, 2:].clamp(min=0.03)
    points = (2 * (centre + offsets * radius) - 1).to(fine.dtype)  # (B, K, T, WINDOW, WINDOW, 2) in [-1, 1]
    maps = fine[:, None].expand(-1, objects, -1, -1, -1, -1).flatten(0, 2)  # (B*K*T, C, H, W)
    return F.grid_sample(maps, points.flatten(0, 2), align_corners=False)


class Surroundings(nn.Module):
    """Background, camera and light from all frames at once: maps (B, T, 64, 16, 16) -> features (B, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(64, 12, 1)
        self.over_time = nn.Sequential(_conv(12 * FRAMES, 96, 1), _conv(96, 96, 2), _conv(96, 64, 2), nn.Flatten())
        self.whole = nn.Sequential(nn.Linear(64 * 16 + 128, 256), nn.SiLU())

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        narrow = self.narrow(maps.flatten(0, 1)).reshape(len(maps), -1, *maps.shape[3:])  # (B, T*12, 16, 16)
        pooled = torch.cat([maps.mean((1, 3, 4)), maps.amax((1, 3, 4))], dim=1)  # (B, 128)
        out: Tensor = self.whole(torch.cat([self.over_time(narrow), pooled], dim=1))
        return out


class Judge(nn.Module):
    """Clips (B, FRAMES, SIDE, SIDE, 3) in [-1, 1] -> Reading."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = _conv(3, 32, 2)  # (N, 32, 32, 32)
        self.medium = _conv(32, 64, 2)  # (N, 64, 16, 16)
        self.coarse = nn.Sequential(_conv(64, WIDTH, 2), Residual(WIDTH), Residual(WIDTH))  # (N, WIDTH, 8, 8)
        self.finder, self.close_look, self.surroundings = Finder(), CloseLook(), Surroundings()
        self.present = nn.Sequential(nn.Linear(2 * WIDTH, 64), nn.SiLU(), nn.Linear(64, 1))
        self.setting = nn.ModuleList(nn.Linear(256, count) for count in SCENE_CLASSES)

    def forward(self, clip: Tensor, colours: Tensor | None = None) -> Reading:
        """colours (B, MAX_OBJECTS): the objects to look at closely, by default the likeliest."""
        batch = clip.shape[0]
        flat = clip.flatten(0, 1).permute(0, 3, 1, 2)  # (B*T, 3, 64, 64)
        fine = self.fine(flat)
        medium = self.medium(fine)
        found, tracks = self.finder(self.coarse(medium))
        found = found.reshape(batch, FRAMES, len(COLOURS), WIDTH)
        present = self.present(torch.cat([found.mean(1), found.amax(1)], dim=-1))[..., 0]  # (B, 12)
        tracks = tracks.reshape(batch, FRAMES, len(COLOURS), 3).transpose(1, 2).float()  # (B, 12, T, 3)
        if colours is None:
            colours = present.topk(MAX_OBJECTS, dim=1).indices
        # The place of a window is given by the finder's own loss, not by what is read inside it.
        chosen = tracks.detach().gather(1, colours[..., None, None].expand(-1, -1, FRAMES, 3))  # (B, K, T, 3)
        # The picture itself beside the first features, which see colours through weights of their own.
        sharp = torch.cat([fine, F.avg_pool2d(flat, 2).to(fine.dtype)], dim=1)
        whole = self.surroundings(medium.reshape(batch, FRAMES, *medium.shape[1:]))
        sure = present.sigmoid()
        return Reading(
            present=present,
            colours=colours,
            objects=self.close_look(sharp.reshape(batch, FRAMES, *sharp.shape[1:]), chosen, sure.detach().sum(1)),
            setting=[head(whole) for head in self.setting],
            tracks=tracks,
            features=torch.cat([whole, (sure[:, None, :, None] * found).sum((1, 2)) / FRAMES], dim=1),
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
    """The likeliest values of the objects that were looked at."""
    parts = [logits.argmax(-1) for logits in reading.objects]
    index = reading.colours[..., None, None].expand(-1, -1, FRAMES, 3)
    return Seen(
        things=torch.stack([parts[0], reading.colours, *parts[1:]], dim=-1),
        sure=reading.present.sigmoid().gather(1, reading.colours),
        setting=torch.stack([logits.argmax(-1) for logits in reading.setting], dim=1),
        tracks=reading.tracks.gather(1, index),
        features=reading.features,
    )


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
