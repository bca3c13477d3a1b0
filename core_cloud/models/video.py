"""Pocket's base network in torch: a video transformer that predicts the clean clip from a noisy one (x-prediction).

Clips are float tensors (B, T, H, W, 3) in [-1, 1]. The text is the reader's slots (B, SLOTS, 192), and a layout may say
where things are. Frames that are known (an image to start from, the end of a clip to extend, both ends to
interpolate between) enter beside the noisy clip with a mask per frame: one network for all tasks. Decides architecture
only: no noise schedule, no files.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_cloud.models.attention import RMSNorm, rotary_angles, wave
from core_cloud.models.grounding import Grounding
from core_cloud.models.reader import SLOTS
from core_cloud.models.transformer import Block, KeyPool

DETAIL = 8  # numbers that the tokens say of each pixel to the convolutions that sharpen the clip
HEAD = 64  # width of an attention head, whatever the width of the network


@dataclass(frozen=True, slots=True)
class BaseParams:
    """Shape of the base transformer.

    Attention is pruned by kv_pool, the side of the squares of patches whose keys and values are averaged, and by
    attending: only every so manyth block attends, beginning with the first. channels: numbers per pixel.
    """

    dim: int = 192
    depth: int = 6
    heads: int = 3
    frames: int = 8
    size: int = 48
    patch_frames: int = 2
    patch_size: int = 6
    slot_dim: int = 192
    kv_pool: int = 1
    attending: int = 1
    channels: int = 3

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches along time, height and width."""
        side = self.size // self.patch_size
        return self.frames // self.patch_frames, side, side

    @property
    def patch_values(self) -> int:
        """Numbers in one patch of a clip."""
        return self.patch_frames * self.patch_size**2 * self.channels


class Conditions(NamedTuple):
    """What a clip is to show.

    slots (B, SLOTS, slot_dim); keep (B,) 1 with text and layout, 0 without both; layout (B, SLOTS, T, LAYOUT_VALUES),
    zeros where it is open; known (B, T, H, W, channels) with mask (B, T), 1 where a frame is given.
    """

    slots: Tensor
    keep: Tensor
    layout: Tensor
    known: Tensor
    mask: Tensor


class Detail(nn.Module):
    """Sharpens what the patches painted: a linear head cannot draw an outline across patches, convolutions can.

    They see what the tokens say of every pixel, the painted clip, and the noisy one, which shows the outline late in
    the flow.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(DETAIL + 2 * channels, 32, 3, padding=1)
        self.out = nn.Conv2d(32, channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)

    def forward(self, told: Tensor, painted: Tensor, noisy: Tensor) -> Tensor:
        """told (B, T, H, W, DETAIL), painted and noisy (B, T, H, W, channels) -> sharper, the same."""
        layers = torch.cat([told, painted, noisy.to(told.dtype)], dim=-1).flatten(0, 1).permute(0, 3, 1, 2)
        more = self.out(F.silu(self.mix(layers))).permute(0, 2, 3, 1)
        out: Tensor = painted + more.reshape(painted.shape)
        return out


class BaseTransformer(nn.Module):
    """The base; the slots are a prefix of the sequence and modulate every block together with the time."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, params: BaseParams) -> None:
        super().__init__()
        self.params = params
        frames, rows, columns = params.grid
        dim = params.dim
        self.embed = nn.Linear(params.patch_values, dim)
        self.embed_known = nn.Linear(params.patch_values + params.patch_frames, dim, bias=False)
        self.ground = Grounding(params.grid, params.patch_frames, params.slot_dim, dim)
        self.place_t = nn.Parameter(torch.randn(frames, 1, 1, dim) * 0.3)
        self.place_y = nn.Parameter(torch.randn(1, rows, 1, dim) * 0.3)
        self.place_x = nn.Parameter(torch.randn(1, 1, columns, dim) * 0.3)
        self.null = nn.Parameter(torch.randn(SLOTS, params.slot_dim) * 0.02)
        self.slot = nn.Linear(params.slot_dim, dim)
        self.slot_place = nn.Parameter(torch.randn(SLOTS, dim) * 0.3)
        self.time = nn.Sequential(nn.Linear(128, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.words = nn.Linear(SLOTS * params.slot_dim, dim)
        self.modulate = nn.Linear(dim, 6 * dim)
        angles = rotary_angles(dim // params.heads, params.grid, SLOTS)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        pool = KeyPool(params.grid, SLOTS, params.kv_pool) if params.kv_pool > 1 else None
        self.blocks = nn.ModuleList(
            Block(dim, params.heads, pool, attends=index % params.attending == 0) for index in range(params.depth)
        )
        self.norm = RMSNorm()
        self.head = nn.Linear(dim, params.patch_values)
        self.tell = nn.Linear(dim, params.patch_values // params.channels * DETAIL)
        self.detail = Detail(params.channels)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def patchify(self, clip: Tensor) -> Tensor:
        """(B, T, H, W, channels) -> (B, L, values)."""
        p, (frames, rows, columns) = self.params, self.params.grid
        x = clip.reshape(-1, frames, p.patch_frames, rows, p.patch_size, columns, p.patch_size, p.channels)
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, frames * rows * columns, p.patch_values)

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """(B, L, pixels * C) -> (B, T, H, W, C)."""
        p, (frames, rows, columns) = self.params, self.params.grid
        channels = tokens.shape[-1] * p.channels // p.patch_values
        x = tokens.reshape(-1, frames, rows, columns, p.patch_frames, p.patch_size, p.patch_size, channels)
        return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, p.frames, p.size, p.size, channels)

    def _known(self, known: Tensor, mask: Tensor) -> Tensor:
        """Embedding of the known frames (B, T, H, W, channels), mask (B, T); zero where nothing is known."""
        p, (frames, rows, columns) = self.params, self.params.grid
        patches = self.patchify(known * mask[:, :, None, None, None])  # (B, L, values)
        flags = mask.reshape(-1, frames, 1, p.patch_frames).expand(-1, -1, rows * columns, -1)
        out: Tensor = self.embed_known(torch.cat([patches, flags.flatten(1, 2)], dim=2))
        return out

    def condition(self, t: Tensor, slots: Tensor) -> Tensor:
        """Modulation of every block (B, 6, D)."""
        mixed = self.time(wave(t)) + self.words(slots.flatten(1))  # (B, D)
        out: Tensor = self.modulate(F.silu(mixed)).view(-1, 6, self.params.dim)
        return out

    def forward(self, noisy: Tensor, t: Tensor, given: Conditions) -> tuple[Tensor, Tensor]:
        """Predict the clean clip.

        noisy (B, T, H, W, channels); t (B,) in [0, 1], 0 is noise, each sample its own. Returns the clip, as noisy, and
        the features after the middle block (B, L, D), which training looks into.
        """
        share = given.keep[:, None, None]
        slots = given.slots * share + self.null * (1 - share)
        layout = given.layout * share[..., None]
        place = (self.place_t + self.place_y + self.place_x).reshape(1, -1, self.params.dim)  # (1, L, D)
        video = self.embed(self.patchify(noisy)) + self._known(given.known, given.mask) + place  # (B, L, D)
        video = video + self.ground(layout, slots)
        x = torch.cat([self.slot(slots) + self.slot_place, video], dim=1)  # (B, SLOTS + L, D)
        modulation, middle = self.condition(t, slots), x
        for index, block in enumerate(self.blocks):
            x = block(x, modulation, (self.cosine, self.sine))
            if index == (self.params.depth - 1) // 2:
                middle = x
        last = self.norm(x[:, SLOTS:])
        painted, told = self.unpatchify(self.head(last)), self.unpatchify(self.tell(last))
        return self.detail(told, painted, noisy), middle[:, SLOTS:]
