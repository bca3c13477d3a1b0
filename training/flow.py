"""Flow matching with x-prediction: the path, the distribution of t, and the loss.

The path runs from noise at t = 0 to the clip at t = 1: z = t x + (1 - t) noise. The loss is the squared error of the
velocity (x_hat - x) / (1 - t), with 1 - t clamped so that steps near the clip do not dominate.
"""

import torch
from torch import Tensor

from core_cloud.models.layout import THING_VALUES
from core_cloud.models.reader import OBJECT_SLOTS

CLAMP = 0.25
OPEN_WITH_FRAMES = 0.4  # share of clips with known frames whose layout is open
THING_UNTOLD = 0.06  # share of objects of which a layout says nothing
GROUND_UNTOLD = 0.1  # share of layouts that say nothing of the ground
GROUND_UNTOLD_WITH_FRAMES = 0.4  # the same where frames are known, as in a stream
T_MEAN, T_DEVIATION = -0.7, 1.0


def sample_t(count: int, generator: torch.Generator) -> Tensor:
    """Logit-normal t, (count,) float32 in (0, 1); one in eight is exactly 0, where every sampler starts."""
    device = generator.device
    t = torch.sigmoid(torch.randn(count, generator=generator, device=device) * T_DEVIATION + T_MEAN)
    return torch.where(torch.rand(count, generator=generator, device=device) < 1 / 8, 0.0, t)


def noised(clip: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The point of the path at t (B,) for clips (B, T, H, W, 3), or for anything else of which there are B."""
    share = t.reshape(-1, *[1] * (clip.ndim - 1))
    return share * clip + (1 - share) * noise


def velocity_loss(predicted: Tensor, clip: Tensor, t: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over the batch of the squared velocity error, a scalar; weight (B, T, H, W, 1) per pixel, mean about one."""
    error = (predicted.float() - clip).square()
    if weight is not None:
        error = error * weight
    steep = 1.0 / (1.0 - t).clamp(min=CLAMP).square()  # (B,)
    loss: Tensor = (error.mean(dim=(1, 2, 3, 4)) * steep).mean()
    return loss


def known_frames(later: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """Which frames a training clip is given, (B, frames) of 0 and 1: mostly none, else those of one task.

    Clips that begin later, by later (B,), are given their first half: what prompts alone ask for is the whole. Of the
    others 70 % none, 10 % the first (image to video), 10 % the first 2 to frames - 2 (extension; half of them exactly
    the first half, as the live mode asks), 7 % the first and last (interpolation), 3 % any.
    """
    device, count = generator.device, len(later)
    draw, other = torch.rand(2, count, 1, generator=generator, device=device)  # (B, 1) each
    frame = torch.arange(frames, device=device)[None, :]
    length = torch.where(draw < 0.85, frames // 2, 2 + (other * (frames - 3)).long())
    scattered = torch.rand(count, frames, generator=generator, device=device) < 0.4
    mask = (draw >= 0.70) & (draw < 0.97) & (frame == 0)
    mask |= (draw >= 0.80) & (draw < 0.90) & (frame < length)
    mask |= (draw >= 0.90) & (draw < 0.97) & (frame == frames - 1)
    mask |= (draw >= 0.97) & scattered
    return torch.where(later[:, None], frame < frames // 2, mask).float()


def open_layouts(layouts: Tensor, mask: Tensor, dropout: float, generator: torch.Generator) -> Tensor:
    """Layouts (B, SLOTS, T, V) as a training clip is given them: none by chance, and oftener where frames are known.

    In foreign frames (mask (B, T) says which are known) nothing may be found, in a clip that is redrawn some of the
    things. The ground's row too is left out by chance, and its layers wherever frames are known, which show them.
    """
    given = mask.any(dim=1)
    chance, other = torch.rand(2, len(layouts), generator=generator, device=generator.device)
    kept = chance >= torch.where(given, OPEN_WITH_FRAMES, dropout)
    ground = other >= torch.where(given, GROUND_UNTOLD_WITH_FRAMES, GROUND_UNTOLD)
    things = torch.rand(len(layouts), OBJECT_SLOTS, generator=generator, device=generator.device) >= THING_UNTOLD
    rows = torch.cat([things, ground[:, None]], dim=1) & kept[:, None]  # (B, SLOTS)
    out = layouts * rows[..., None, None]
    layers = out[..., THING_VALUES:] * ~given[:, None, None, None]
    return torch.cat([out[..., :THING_VALUES], layers], dim=-1)
