"""Text conditioning shared by Pocket's networks: standardised token embeddings and an attention pool over them."""

import torch
from torch import Tensor, nn

WIDTH = 64  # values per query


class Standardise(nn.Module):
    """Shift and scale token embeddings to zero mean and unit deviation per value; the figures come from the data."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, text_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(text_dim))
        self.register_buffer("deviation", torch.ones(text_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        return (tokens - self.mean) / self.deviation

    def fit(self, tokens: Tensor, mask: Tensor) -> None:
        """Take mean and deviation from tokens (N, L, D) where mask (N, L) is one."""
        seen = tokens[mask > 0]  # (M, D)
        self.mean.copy_(seen.mean(0))
        self.deviation.copy_(seen.std(0) + 1e-3)


class TextPool(nn.Module):
    """Learned queries attend to the tokens: (B, L, D), mask (B, L) -> (B, queries * WIDTH); zeros without text."""

    def __init__(self, text_dim: int, queries: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, WIDTH) * 0.3)
        self.key = nn.Linear(text_dim, WIDTH)
        self.value = nn.Linear(text_dim, WIDTH)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        scores = self.key(tokens) @ self.queries.t() / WIDTH**0.5  # (B, L, Q)
        weights = (scores - 1e4 * (1 - mask[..., None])).softmax(dim=1)
        pooled = weights.transpose(1, 2) @ self.value(tokens)  # (B, Q, WIDTH)
        out: Tensor = pooled.flatten(1) * mask[:, :1]
        return out
