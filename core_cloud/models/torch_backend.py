"""Pocket's networks in torch, with the weights of the exported ONNX files; the text encoder stays in ONNX Runtime."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from adaptivegen.errors import GenerationFailed
from adaptivegen.models.text import TextEmbedding, TextEncoder
from core_cloud.models.pocket import BaseParams, BaseTransformer
from core_cloud.models.stored import block_count, filled, load_doubler, stored_weights
from core_cloud.models.upsampler import (
    SCALE,
    SpaceTimeUpsampler,
    UpsamplerParams,
)

Floats = NDArray[np.float32]


def load_base(path: Path) -> nn.Module:
    """The base transformer of an exported file; its shape is read from the weights."""
    weights = stored_weights(path)
    dim = weights["embed.weight"].shape[0]
    queries = weights["pool.queries"].shape[0]
    params = BaseParams(dim=dim, depth=block_count(weights, "blocks."), heads=dim // 64, queries=queries)
    return filled(BaseTransformer(params), weights)


def load_upsampler(path: Path) -> nn.Module:
    """The space-time upsampler of an exported file."""
    weights = stored_weights(path)
    params = UpsamplerParams(
        channels=weights["stem.weight"].shape[0],
        depth=block_count(weights, "blocks."),
        stretch=weights["head.weight"].shape[0] // (3 * SCALE**2),
        queries=weights["pool.queries"].shape[0],
    )
    return filled(SpaceTimeUpsampler(params), weights)


class TorchNetworks:
    """`adaptivegen.models.pocket.Networks` in torch, on one device, in float32."""

    def __init__(self, paths: dict[str, Path], *, threads: int, device: str | None = None) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_num_threads(threads)
        self._text = TextEncoder(paths["text_encoder"].parent, threads=threads)
        self._base = load_base(paths["base"]).to(self.device)
        self._upsampler = load_upsampler(paths["upsampler"]).to(self.device)
        self._doubler = load_doubler(paths["doubler"]).to(self.device) if "doubler" in paths else None

    def encode(self, prompt: str) -> TextEmbedding:
        """Embed the prompt."""
        return self._text.encode(prompt)

    def predict(self, noisy: Floats, t: float, text: TextEmbedding, *, conditional: bool) -> Floats:
        """One base evaluation, (8, 32, 32, 3) -> the same."""
        mask = text.mask * np.float32(conditional)
        clean: Floats = self._run(
            self._base, noisy[None], self._scalar(t), text.tokens[None], mask[None], text.pooled[None]
        )[0]
        return clean

    def upsample(self, low: Floats, level: float, text: TextEmbedding) -> Floats:
        """(8, 32, 32, 3) -> (24, 128, 128, 3)."""
        high: Floats = self._run(self._upsampler, low[None], self._scalar(level), text.tokens[None], text.mask[None])[0]
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
        out: Floats = network(*inputs).float().cpu().numpy()
        return out
