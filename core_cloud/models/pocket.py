"""Pocket's networks in torch: the base video transformer and the convolutional upsamplers.

Clips are float tensors (B, T, H, W, 3) in [-1, 1]. Text is (B, 32, 384) token embeddings with a (B, 32) mask of 0 and
1, and a (B, 384) pooled vector. Decides architecture only: no noise schedule, no files, no optimiser.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_cloud.models.attention import RMSNorm, rotary_angles, rotate, wave
from core_cloud.models.text_pool import WIDTH, Standardise, TextPool


@dataclass(frozen=True, slots=True)
class BaseParams:
    """Shape of the base transformer."""

    dim: int = 256
    depth: int = 6
    heads: int = 4
    frames: int = 8
    size: int = 32
    patch_frames: int = 2
    patch_size: int = 4
    text_tokens: int = 32
    text_dim: int = 384
    queries: int = 8

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches along time, height and width."""
        side = self.size // self.patch_size
        return self.frames // self.patch_frames, side, side

    @property
    def patch_values(self) -> int:
        """Numbers in one patch."""
        return self.patch_frames * self.patch_size**2 * 3


class Block(nn.Module):
    """Pre-norm transformer block; scale, shift and gates come from one shared modulation plus a learned table."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
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
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = x + gate1 * self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        h = self.norm(x) * (1 + scale2) + shift2
        out: Tensor = x + gate2 * self.down(F.gelu(self.up(h), approximate="tanh"))
        return out


class BaseTransformer(nn.Module):
    """Predicts the clean low-resolution clip from a noisy one (x-prediction).

    Text tokens are a prefix of the sequence; an attention pool over them and the pooled vector modulate every block.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, params: BaseParams) -> None:
        super().__init__()
        self.params = params
        frames, rows, columns = params.grid
        dim = params.dim
        self.embed = nn.Linear(params.patch_values, dim)
        self.place_t = nn.Parameter(torch.randn(frames, 1, 1, dim) * 0.3)
        self.place_y = nn.Parameter(torch.randn(1, rows, 1, dim) * 0.3)
        self.place_x = nn.Parameter(torch.randn(1, 1, columns, dim) * 0.3)
        self.standardise = Standardise(params.text_dim)
        self.text = nn.Linear(params.text_dim, dim)
        self.pool = TextPool(params.text_dim, params.queries)
        self.words = nn.Linear(params.queries * WIDTH, dim)
        self.null = nn.Parameter(torch.randn(params.text_tokens, dim) * 0.02)
        self.time = nn.Sequential(nn.Linear(128, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.pooled = nn.Linear(params.text_dim, dim)
        self.modulate = nn.Linear(dim, 6 * dim)
        angles = rotary_angles(dim // params.heads, params.grid, params.text_tokens)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        self.blocks = nn.ModuleList(Block(dim, params.heads) for _ in range(params.depth))
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

    def forward(self, noisy: Tensor, t: Tensor, tokens: Tensor, mask: Tensor, pooled: Tensor) -> Tensor:
        """noisy (B, T, H, W, 3), t (B,) in [0, 1] (0 is noise); returns the predicted clean clip, same shape.

        A mask of zeros everywhere is the unconditional model.
        """
        place = (self.place_t + self.place_y + self.place_x).reshape(1, -1, self.params.dim)  # (1, L, D)
        video = self.embed(self.patchify(noisy)) + place  # (B, L, D)
        keep = mask[..., None]  # (B, 32, 1)
        tokens = self.standardise(tokens)
        prefix = self.text(tokens) * keep + self.null * (1 - keep)  # (B, 32, D)
        words = self.words(self.pool(tokens, mask))  # (B, D)
        condition = self.time(wave(t)) + self.pooled(pooled * mask[:, :1]) + words  # (B, D)
        modulation = self.modulate(F.silu(condition)).view(-1, 6, self.params.dim)  # (B, 6, D)
        x = torch.cat([prefix, video], dim=1)  # (B, 32 + L, D)
        for block in self.blocks:
            x = block(x, modulation, (self.cosine, self.sine))
        return self.unpatchify(self.head(self.norm(x[:, self.params.text_tokens :])))
