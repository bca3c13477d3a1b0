"""Flow matching with x-prediction: the path, the distribution of t, and the loss.

The path runs from noise at t = 0 to the clip at t = 1: z = t x + (1 - t) noise. The loss is the squared error of the
velocity (x_hat - x) / (1 - t), with 1 - t clamped so that steps near the clip do not dominate.
"""

import torch
from torch import Tensor

CLAMP = 0.25
T_MEAN, T_DEVIATION = -0.7, 1.0


def sample_t(count: int, generator: torch.Generator, device: str = "cpu") -> Tensor:
    """Logit-normal t, (count,) float32 in (0, 1); one in eight is exactly 0, where every sampler starts."""
    t = torch.sigmoid(torch.randn(count, generator=generator) * T_DEVIATION + T_MEAN)
    t[torch.rand(count, generator=generator) < 1 / 8] = 0.0
    return t.to(device)


def noised(clip: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The point of the path at t (B,) for clips (B, T, H, W, 3)."""
    share = t[:, None, None, None, None]
    return share * clip + (1 - share) * noise


def velocity_loss(predicted: Tensor, clip: Tensor, t: Tensor) -> Tensor:
    """Mean over the batch of the squared velocity error, a scalar."""
    weight = 1.0 / (1.0 - t).clamp(min=CLAMP).square()  # (B,)
    return ((predicted.float() - clip).square().mean(dim=(1, 2, 3, 4)) * weight).mean()
