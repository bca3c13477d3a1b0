"""A light causal video autoencoder, the other way to a small clip that `compare_spaces` compares Pocket's pixels with.

Frames become latents of an eighth of their side and a quarter of their number, with eight numbers per place. Causal
in time as those of CogVideoX (Yang et al. 2024) or LTX-Video (HaCohen et al. 2024): no frame hears of a later group.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP, SIDE_FACTOR, CHANNELS = 4, 8, 8  # frames and pixels per latent place, and its numbers
_FOLD = 4  # pixels along each side that are folded into channels first
_WIDE, _DEEP = 64, 96


class _Block(nn.Module):
    """Residual pair of convolutions; a quarter of the channels comes from the frame before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """x (B*T, C, H, W)."""
        clip = x.view(-1, frames, *x.shape[1:])
        part = x.shape[1] // 4
        before = torch.cat([clip[:, :1, :part], clip[:, :-1, :part]], dim=1)
        heard = torch.cat([before, clip[:, :, part:]], dim=2).view(x.shape)
        out: Tensor = x + self.second(F.silu(self.first(F.silu(heard))))
        return out


class VideoVae(nn.Module):
    """Clips (B, T, H, W, 3) in [-1, 1] to latents (B, T/4, H/8, W/8, 8) and back."""

    def __init__(self) -> None:
        super().__init__()
        folded = 3 * _FOLD**2
        self.fold = nn.Conv2d(folded, _WIDE, 3, padding=1)
        self.fine = nn.ModuleList(_Block(_WIDE) for _ in range(2))
        self.shrink = nn.Conv2d(_WIDE, _DEEP, 4, stride=2, padding=1)
        self.coarse = nn.ModuleList(_Block(_DEEP) for _ in range(2))
        self.squeeze = nn.Conv2d(GROUP * _DEEP, 2 * CHANNELS, 1)
        self.spread = nn.Conv2d(CHANNELS, GROUP * _DEEP, 1)
        self.coarse_out = nn.ModuleList(_Block(_DEEP) for _ in range(2))
        self.grow = nn.Conv2d(_DEEP, 4 * _WIDE, 3, padding=1)
        self.fine_out = nn.ModuleList(_Block(_WIDE) for _ in range(2))
        self.unfold = nn.Conv2d(_WIDE, folded, 3, padding=1)

    def encode(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Means and logarithms of variances of the latents, each (B, T/4, H/8, W/8, 8)."""
        frames = clip.shape[1]
        x = self.fold(F.pixel_unshuffle(clip.permute(0, 1, 4, 2, 3).flatten(0, 1), _FOLD))
        for block in self.fine:
            x = block(x, frames)
        x = self.shrink(F.silu(x))
        for block in self.coarse:
            x = block(x, frames)
        grouped = x.reshape(-1, GROUP * _DEEP, *x.shape[2:])  # the channels of four frames beside one another
        out = self.squeeze(F.silu(grouped)).view(-1, frames // GROUP, 2 * CHANNELS, *x.shape[2:])
        mean, log_variance = out.permute(0, 1, 3, 4, 2).chunk(2, dim=-1)
        return mean, log_variance.clamp(-12.0, 4.0)

    def decode(self, latents: Tensor) -> Tensor:
        """The clip of latents."""
        batch, groups, height, width, _ = latents.shape
        frames = groups * GROUP
        spread = self.spread(latents.permute(0, 1, 4, 2, 3).flatten(0, 1))
        x = spread.reshape(batch * frames, _DEEP, height, width)
        for block in self.coarse_out:
            x = block(x, frames)
        x = F.pixel_shuffle(self.grow(F.silu(x)), 2)
        for block in self.fine_out:
            x = block(x, frames)
        out = F.pixel_shuffle(self.unfold(F.silu(x)), _FOLD)
        clip: Tensor = out.view(batch, frames, *out.shape[1:]).permute(0, 1, 3, 4, 2)
        return clip


def vae_loss(model: VideoVae, clip: Tensor, generator: torch.Generator) -> Tensor:
    """Absolute error of the clip made again, and a little of the divergence from unit normal latents."""
    mean, log_variance = model.encode(clip)
    noise = torch.randn(mean.shape, generator=generator, device=clip.device)
    made = model.decode(mean + (0.5 * log_variance).exp() * noise)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
    loss: Tensor = (made.float() - clip).abs().mean() + 1e-4 * divergence
    return loss
