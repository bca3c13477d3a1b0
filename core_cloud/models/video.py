"""Pocket's base network in torch: a video transformer that predicts the clean clip from a noisy one (x-prediction).

Clips are float tensors (B, T, H, W, 3) in [-1, 1]. The text is the reader's slots (B, SLOTS, 192). Frames that are
known (an image to start from, the end of a clip to extend, both ends to interpolate between) enter beside the noisy
clip with a mask per frame: one network for all tasks. Decides architecture only: no noise schedule, no files.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_cloud.models.attention import RMSNorm, rotary_angles, rotate, wave
from core_cloud.models.reader import SLOTS

HEAD = 64  # width of an attention head, whatever the width of the network


@dataclass(frozen=True, slots=True)
class BaseParams:
    """Shape of the base transformer. kv_pool: side of the squares of patches that attention averages its keys over."""

    dim: int = 192
    depth: int = 6
    heads: int = 3
    frames: int = 8
    size: int = 48
    patch_frames: int = 2
    patch_size: int = 6
    slot_dim: int = 192
    kv_pool: int = 1

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches along time, height and width."""
        side = self.size // self.patch_size
        return self.frames // self.patch_frames, side, side

    @property
    def patch_values(self) -> int:
        """Numbers in one patch of a clip."""
        return self.patch_frames * self.patch_size**2 * 3


class Block(nn.Module):
    """Pre-norm transformer block; scale, shift and gates come from one shared modulation plus a learned table."""

    def __init__(self, params: BaseParams) -> None:
        super().__init__()
        dim = params.dim
        self.heads, self.grid, self.kv_pool = params.heads, params.grid, params.kv_pool
        self.norm = RMSNorm()
        table = torch.zeros(6, dim)
        table[[2, 5]] = 0.5  # the gates start half open
        self.table = nn.Parameter(table)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, modulation: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """x (B, L, D), modulation (B, 6, D), turn: cosine and sine of `rotary_angles`."""
        batch, length, dim = x.shape
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table).unsqueeze(2).unbind(1)  # (B, 1, D)
        h = self.norm(x) * (1 + scale1) + shift1  # (B, L, D)
        qkv = self.qkv(h).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, L, D/heads)
        q, k = rotate(self.norm(q), turn).to(v.dtype), rotate(self.norm(k), turn).to(v.dtype)
        if self.kv_pool > 1:
            k, v = self._pooled(k), self._pooled(v)
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = x + gate1 * self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        h = self.norm(x) * (1 + scale2) + shift2
        out: Tensor = x + gate2 * self.down(F.gelu(self.up(h), approximate="tanh"))
        return out

    def _pooled(self, x: Tensor) -> Tensor:
        """Average keys or values (B, heads, SLOTS + L, K) over squares of patches; the slots stay."""
        batch, heads, _, width = x.shape
        frames, rows, columns = self.grid
        video = x[:, :, SLOTS:].reshape(batch * heads * frames, rows, columns, width).permute(0, 3, 1, 2)
        small = F.avg_pool2d(video, self.kv_pool).permute(0, 2, 3, 1).reshape(batch, heads, -1, width)
        return torch.cat([x[:, :, :SLOTS], small], dim=2)


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
        self.blocks = nn.ModuleList(Block(params) for _ in range(params.depth))
        self.norm = RMSNorm()
        self.head = nn.Linear(dim, params.patch_values)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def patchify(self, clip: Tensor) -> Tensor:
        """(B, T, H, W, 3) -> (B, L, values)."""
        p, (frames, rows, columns) = self.params, self.params.grid
        x = clip.reshape(-1, frames, p.patch_frames, rows, p.patch_size, columns, p.patch_size, 3)
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, frames * rows * columns, p.patch_values)

    def unpatchify(self, tokens: Tensor) -> Tensor:
        """(B, L, values) -> (B, T, H, W, 3)."""
        p, (frames, rows, columns) = self.params, self.params.grid
        x = tokens.reshape(-1, frames, rows, columns, p.patch_frames, p.patch_size, p.patch_size, 3)
        return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, p.frames, p.size, p.size, 3)

    def _known(self, known: Tensor, mask: Tensor) -> Tensor:
        """Embedding of the known frames (B, T, H, W, 3), mask (B, T); zero where nothing is known."""
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

    def forward(
        self, noisy: Tensor, t: Tensor, slots: Tensor, keep: Tensor, known: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict the clean clip.

        noisy (B, T, H, W, 3); t (B,) in [0, 1], 0 is noise, each sample its own; slots (B, SLOTS, slot_dim); keep
        (B,) 1 with text, 0 without; known (B, T, H, W, 3) with mask (B, T), 1 where a frame is given. Returns the
        clip (B, T, H, W, 3) and the features after the middle block (B, L, D), which training looks into.
        """
        share = keep[:, None, None]
        slots = slots * share + self.null * (1 - share)
        place = (self.place_t + self.place_y + self.place_x).reshape(1, -1, self.params.dim)  # (1, L, D)
        video = self.embed(self.patchify(noisy)) + self._known(known, mask) + place  # (B, L, D)
        x = torch.cat([self.slot(slots) + self.slot_place, video], dim=1)  # (B, SLOTS + L, D)
        modulation, middle = self.condition(t, slots), x
        for index, block in enumerate(self.blocks):
            x = block(x, modulation, (self.cosine, self.sine))
            if index == (self.params.depth - 1) // 2:
                middle = x
        return self.unpatchify(self.head(self.norm(x[:, SLOTS:]))), middle[:, SLOTS:]
