"""The reader: a small torch network that turns a caption's token embeddings into slots, one per object and one more.

Trained on captions alone to name every attribute (`training.train_reader`), then frozen: all Pocket models are
conditioned on its slots. Slot k < OBJECT_SLOTS is the k-th object named, the last one background, camera and lighting.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OBJECT_SLOTS = 3
SLOTS = OBJECT_SLOTS + 1


class Attend(nn.Module):
    """Slots look at the tokens, at one another, and think: pre-norm cross-attention, self-attention and MLP."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.crossed = nn.Linear(dim, dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.mixed = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, slots: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        """slots (B, S, D), tokens (B, L, D), bias (B, 1, 1, L) added to the scores."""
        q = self._split(self.query(self.norms[0](slots)))
        k, v = (self._split(part) for part in self.key_value(tokens).chunk(2, dim=-1))
        slots = slots + self.crossed(self._merge(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)))
        q, k, v = (self._split(part) for part in self.qkv(self.norms[1](slots)).chunk(3, dim=-1))
        slots = slots + self.mixed(self._merge(F.scaled_dot_product_attention(q, k, v)))
        out: Tensor = slots + self.mlp(self.norms[2](slots))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, heads, N, D / heads)."""
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    @staticmethod
    def _merge(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(-2)


class Reader(nn.Module):
    """Token embeddings (B, L, 384) and mask (B, L) of 0 and 1 -> slots (B, SLOTS, dim)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int = 192, depth: int = 3, heads: int = 4, text_dim: int = 384) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(text_dim))
        self.register_buffer("deviation", torch.ones(text_dim))
        self.embed = nn.Linear(text_dim, dim)
        self.start = nn.Parameter(torch.randn(SLOTS, dim) * 0.5)
        self.layers = nn.ModuleList(Attend(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def fit_scale(self, tokens: Tensor, mask: Tensor) -> None:
        """Take mean and deviation of the inputs from tokens (N, L, 384) where mask (N, L) is one."""
        seen = tokens[mask > 0]  # (M, 384)
        self.mean.copy_(seen.mean(0))
        self.deviation.copy_(seen.std(0) + 1e-3)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """See the class."""
        x = self.embed((tokens - self.mean) / self.deviation)  # (B, L, D)
        bias = ((mask - 1) * 1e4)[:, None, None, :]
        slots = self.start.expand(len(tokens), -1, -1)
        for layer in self.layers:
            slots = layer(slots, x, bias)
        out: Tensor = self.norm(slots)
        return out


class AttributeHeads(nn.Module):
    """What the reader is trained with: logits of every attribute from its slots."""

    def __init__(self, dim: int, object_classes: Sequence[int], setting_classes: Sequence[int]) -> None:
        super().__init__()
        self.present = nn.Linear(dim, 2)
        self.objects = nn.ModuleList(nn.Linear(dim, count) for count in object_classes)
        self.setting = nn.ModuleList(nn.Linear(dim, count) for count in setting_classes)

    def forward(self, slots: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """present (B, OBJECT_SLOTS, 2), logits per object attribute (B, OBJECT_SLOTS, n), per setting (B, n)."""
        things = slots[:, :OBJECT_SLOTS]
        return self.present(things), [head(things) for head in self.objects], [h(slots[:, -1]) for h in self.setting]
