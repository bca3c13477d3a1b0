"""Pocket's networks in torch, with the weights of the exported ONNX files; text and planner stay in ONNX Runtime."""

from collections.abc import Callable, Container
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptivegen.errors import GenerationFailed
from adaptivegen.models.layout import NOWHERE, Found, LayoutPlanner, Scene
from adaptivegen.models.slots import PromptSlots, SlotEncoder
from adaptivegen.models.starts import Arranged
from core_cloud.models.enlarge import (
    SHUFFLE,
    SpaceTimeUpsampler,
    UpsamplerParams,
)
from core_cloud.models.stored import block_count, filled, load_doubler, stored_params, stored_weights
from core_cloud.models.video import BaseParams, BaseTransformer, Conditions

Floats = NDArray[np.float32]


def load_base(path: Path) -> nn.Module:
    """The base transformer of an exported file; raises GenerationFailed when it is of another kind."""
    params = stored_params(path)
    try:
        model = BaseTransformer(BaseParams(**params))
    except TypeError as exc:
        raise GenerationFailed(f"weights file {path.name} is of another kind of base: {exc}") from exc
    return filled(model, stored_weights(path))


def load_upsampler(path: Path) -> nn.Module:
    """The space-time upsampler of an exported file."""
    weights = stored_weights(path)
    params = UpsamplerParams(
        channels=weights["stem.weight"].shape[0],
        depth=block_count(weights, "blocks."),
        stretch=weights["head.weight"].shape[0] // (3 * SHUFFLE**2),
    )
    return filled(SpaceTimeUpsampler(params), weights)


def float_base(files: Container[str]) -> str:
    """Logical name of the file that has the base's weights as floats: a base for int8 products comes with another."""
    return "base_float" if "base_float" in files else "base"


class CascadeTorch:
    """`adaptivegen.models.cascade.Networks` in torch, on one device, in float32.

    mixed: the base's products in bfloat16, its sums and norms in float32.
    """

    def __init__(self, paths: dict[str, Path], *, threads: int, device: str | None = None, mixed: bool = False) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._mixed = mixed
        torch.set_num_threads(threads)
        self._text = SlotEncoder(paths["text_encoder"].parent, threads=threads)
        self._planner = LayoutPlanner(paths["planner"], paths["finder"], threads=threads)
        self._base = load_base(paths[float_base(paths)]).to(self.device)
        self._upsampler = load_upsampler(paths["upsampler"]).to(self.device)
        self._doubler = load_doubler(paths["doubler"]).to(self.device) if "doubler" in paths else None

    def encode(self, prompt: str) -> PromptSlots:
        """Embed the prompt."""
        return self._text.encode(prompt)

    def find(self, text: PromptSlots, given: Arranged) -> Found | None:
        """Where the prompt's objects are in the frames that are held."""
        return self._planner.find(text, given)

    def plan(self, text: PromptSlots, noise: Floats, found: Found = NOWHERE) -> Floats:
        """The layout that this noise and text lead to, to the last bit what an edge plans on the same processor."""
        return self._planner.plan(text, noise, found)

    def predict(self, noisy: Floats, t: float, scene: Scene, known: Arranged, *, conditional: bool) -> Floats:
        """One base evaluation, (8, 48, 48, 3) -> the same."""
        keep, mask = self._scalar(conditional), known.mask[None]
        given = (scene.text.slots[None], keep, scene.layout[None], known.clip[None], mask)
        clean: Floats = self._run(self._clean, noisy[None], self._scalar(t), *given, mixed=self._mixed)[0]
        return clean

    def _clean(self, noisy: Tensor, t: Tensor, *given: Tensor) -> Tensor:
        clean: Tensor = self._base(noisy, t, Conditions(*given))[0]
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
    def _run(self, network: Callable[..., Tensor], *arrays: Floats, mixed: bool = False) -> Floats:
        inputs = [torch.from_numpy(np.ascontiguousarray(array)).to(self.device) for array in arrays]
        kind = self.device.split(":")[0]
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=mixed):
            made: Floats = network(*inputs).float().cpu().numpy()
        return made
