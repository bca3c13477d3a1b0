"""Pocket's networks in torch, with the weights of the exported ONNX files; the text encoder stays in ONNX Runtime."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from adaptivegen.errors import GenerationFailed
from adaptivegen.models.slots import PromptSlots, SlotEncoder
from adaptivegen.models.starts import Arranged
from core_cloud.models.enlarge import (
    SHUFFLE,
    SpaceTimeUpsampler,
    UpsamplerParams,
)
from core_cloud.models.stored import block_count, filled, load_doubler, stored_weights
from core_cloud.models.video import HEAD, BaseParams, BaseTransformer

Floats = NDArray[np.float32]


def load_base(path: Path) -> nn.Module:
    """The base transformer of an exported file; its shape is read from the weights."""
    weights = stored_weights(path)
    dim = weights["embed.weight"].shape[0]
    params = BaseParams(
        dim=dim, depth=block_count(weights, "blocks."), heads=dim // HEAD, slot_dim=weights["null"].shape[1]
    )
    return filled(BaseTransformer(params), weights)


def load_upsampler(path: Path) -> nn.Module:
    """The space-time upsampler of an exported file."""
    weights = stored_weights(path)
    params = UpsamplerParams(
        channels=weights["stem.weight"].shape[0],
        depth=block_count(weights, "blocks."),
        stretch=weights["head.weight"].shape[0] // (3 * SHUFFLE**2),
    )
    return filled(SpaceTimeUpsampler(params), weights)


class CascadeTorch:
    """`adaptivegen.models.cascade.Networks` in torch, on one device, in float32."""

    def __init__(self, paths: dict[str, Path], *, threads: int, device: str | None = None) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(threads)
        self._text = SlotEncoder(paths["text_encoder"].parent, threads=threads)
        self._base = load_base(paths["base"]).to(self.device)
        self._upsampler = load_upsampler(paths["upsampler"]).to(self.device)
        self._doubler = load_doubler(paths["doubler"]).to(self.device) if "doubler" in paths else None

    def encode(self, prompt: str) -> PromptSlots:
        """Embed the prompt."""
        return self._text.encode(prompt)

    def predict(self, noisy: Floats, t: float, text: PromptSlots, known: Arranged, *, conditional: bool) -> Floats:
        """One base evaluation, (8, 48, 48, 3) -> the same."""
        keep, given = self._scalar(conditional), (known.clip[None], known.mask[None])
        clean: Floats = self._run(self._base, noisy[None], self._scalar(t), text.slots[None], keep, *given)[0]
        return clean

    def upsample(self, low: Floats, level: float, text: PromptSlots) -> Floats:
        """(8, 48, 48, 3) -> (24, 128, 128, 3)."""
        high: Floats = self._run(self._upsampler, low[None], self._scalar(level), text.slots[None])[0]
        return high

    def double(self, frames: Floats) -> Floats:
        """(N, H, W, 3) -> (N, 2H, 2W, 3)."""
        if self._doubler is None:
            raise GenerationFailed("this model has no doubler; its card must not offer the larger size")
        return self._run(self._doubler, frames)

    @staticmethod
    def _scalar(value: float) -> Floats:
        return np.asarray([value], dtype=np.float32)

    @torch.inference_mode()
    def _run(self, network: nn.Module, *arrays: Floats) -> Floats:
        inputs = [torch.from_numpy(np.ascontiguousarray(array)).to(self.device) for array in arrays]
        out = network(*inputs)
        made: Floats = (out[0] if isinstance(out, tuple) else out).float().cpu().numpy()
        return made
