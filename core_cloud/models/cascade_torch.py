"""Pocket's networks in torch, with the weights of the exported ONNX files; the text encoder stays in ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from adaptivegen.errors import GenerationFailed
from adaptivegen.models.slots import PromptSlots, SlotEncoder
from adaptivegen.models.starts import Arranged
from core_cloud.models.enlarge import (
    SHUFFLE,
    FrameDoubler,
    SharpenerParams,
    SpaceTimeUpsampler,
    UpsamplerParams,
)
from core_cloud.models.video import HEAD, BaseParams, BaseTransformer

Floats = NDArray[np.float32]


def stored_weights(path: Path) -> dict[str, Tensor]:
    """float32 tensors by parameter name from a file that keeps some as `name.half` or `name.int8` with its scale."""
    raw = {weight.name: numpy_helper.to_array(weight) for weight in onnx.load(path).graph.initializer}
    out: dict[str, Tensor] = {}
    for name, values in raw.items():
        if name.endswith(".half"):
            out[name.removesuffix(".half")] = torch.from_numpy(values.astype(np.float32))
        elif name.endswith(".int8"):
            plain = name.removesuffix(".int8")
            scale = raw[f"{plain}.scale"].reshape([-1] + [1] * (values.ndim - 1))
            out[plain] = torch.from_numpy(values.astype(np.float32) * scale)
        elif not name.endswith((".scale", ".zero")):
            out[name] = torch.from_numpy(values.copy())
    return out


def _count(weights: dict[str, Tensor], prefix: str) -> int:
    """How many numbered blocks the names under a prefix mention."""
    return 1 + max(int(name.split(".")[1]) for name in weights if name.startswith(prefix))


def _filled(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    wanted = model.state_dict()
    missing = sorted(set(wanted) - set(weights))
    if missing:
        raise GenerationFailed(f"weights file lacks {missing[0]} and {len(missing) - 1} more")
    model.load_state_dict({name: weights[name].view(value.shape) for name, value in wanted.items()})
    return model.eval()


def load_base(path: Path) -> nn.Module:
    """The base transformer of an exported file; its shape is read from the weights."""
    weights = stored_weights(path)
    dim = weights["embed.weight"].shape[0]
    params = BaseParams(dim=dim, depth=_count(weights, "blocks."), heads=dim // HEAD, slot_dim=weights["null"].shape[1])
    return _filled(BaseTransformer(params), weights)


def load_upsampler(path: Path) -> nn.Module:
    """The space-time upsampler of an exported file."""
    weights = stored_weights(path)
    params = UpsamplerParams(
        channels=weights["stem.weight"].shape[0],
        depth=_count(weights, "blocks."),
        stretch=weights["head.weight"].shape[0] // (3 * SHUFFLE**2),
    )
    return _filled(SpaceTimeUpsampler(params), weights)


def load_doubler(path: Path) -> nn.Module:
    """The frame doubler of an exported file."""
    weights = stored_weights(path)
    params = SharpenerParams(channels=weights["stem.weight"].shape[0], depth=_count(weights, "blocks."))
    return _filled(FrameDoubler(params), weights)


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
