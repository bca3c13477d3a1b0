"""The transformer block that Pocket's base and planner are built from."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_cloud.models.attention import RMSNorm, rotate


class KeyPool(nn.Module):
    """Averages keys or values over squares of patches, a cheaper attention; a prefix of the sequence stays."""

    def __init__(self, grid: tuple[int, int, int], prefix: int, side: int) -> None:
        super().__init__()
        self.grid, self.prefix, self.side = grid, prefix, side

    def forward(self, x: Tensor) -> Tensor:
        """x (B, heads, prefix + L, K), L the patches of the grid (frames, rows, columns)."""
        batch, heads, _, width = x.shape
        frames, rows, columns = self.grid
        video = x[:, :, self.prefix :].reshape(batch * heads * frames, rows, columns, width).permute(0, 3, 1, 2)
        small = F.avg_pool2d(video, self.side).permute(0, 2, 3, 1).reshape(batch, heads, -1, width)
        return torch.cat([x[:, :, : self.prefix], small], dim=2)


class Block(nn.Module):
    """Pre-norm transformer block; scale, shift and gates come from one shared modulation plus a learned table."""

    def __init__(self, dim: int, heads: int, pool: KeyPool | None = None) -> None:
        super().__init__()
        self.heads, self.pool = heads, pool
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
        if self.pool is not None:
            k, v = self.pool(k), self.pool(v)
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = x + gate1 * self.out(mixed.transpose(1, 2).reshape(batch, length, dim))
        h = self.norm(x) * (1 + scale2) + shift2
        out: Tensor = x + gate2 * self.down(F.gelu(self.up(h), approximate="tanh"))
        return out
