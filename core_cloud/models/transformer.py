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
        grid = (batch * heads * frames, rows // self.side, self.side, columns // self.side, self.side, width)
        small = x[:, :, self.prefix :].reshape(grid).mean((2, 4)).reshape(batch, heads, -1, width)
        return torch.cat([x[:, :, : self.prefix], small], dim=2)


class Block(nn.Module):
    """Pre-norm transformer block; scale, shift and gates come from one shared modulation plus a learned table.

    pool: averages keys and values. attends: without it there is no attention, every token is changed by itself.
    """

    def __init__(self, dim: int, heads: int, pool: KeyPool | None = None, *, attends: bool = True) -> None:
        super().__init__()
        self.heads, self.pool, self.attends = heads, pool, attends
        self.norm = RMSNorm()
        table = torch.zeros(6, dim)
        table[[2, 5]] = 0.5  # the gates start half open
        self.table = nn.Parameter(table)
        if attends:
            self.qkv = nn.Linear(dim, 3 * dim, bias=False)
            self.out = nn.Linear(dim, dim, bias=False)
        self.up = nn.Linear(dim, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, modulation: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """x (B, L, D), modulation (B, 6, D), turn: cosine and sine of `rotary_angles`."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table).unsqueeze(2).unbind(1)  # (B, 1, D)
        if self.attends:
            x = x + gate1 * self.mixed(self.norm(x) * (1 + scale1) + shift1, turn)
        h = self.norm(x) * (1 + scale2) + shift2
        out: Tensor = x + gate2 * self.down(F.gelu(self.up(h), approximate="tanh"))
        return out

    def mixed(self, h: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """What the tokens h (B, L, D) hear from one another."""
        batch, length, dim = h.shape
        qkv = self.qkv(h).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, L, D/heads)
        q, k = rotate(self.norm(q), turn).to(v.dtype), rotate(self.norm(k), turn).to(v.dtype)
        if self.pool is not None:
            k, v = self.pool(k), self.pool(v)
        heard = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(heard.transpose(1, 2).reshape(batch, length, dim))
        return out
