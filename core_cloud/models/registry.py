"""Opens a model on a backend: ONNX Runtime as everywhere, or torch on a GPU or CPU of the cloud.

The torch networks read their weights out of the same verified ONNX files, so there is one set of weights per version.
"""

from pathlib import Path
from typing import Literal

from adaptivegen.errors import InvalidRequest
from adaptivegen.models import registry
from adaptivegen.models.base import SplitGenerator
from adaptivegen.models.cascade import CascadeGenerator

Backend = Literal["onnx", "torch"]
BACKENDS: tuple[Backend, ...] = ("onnx", "torch")


def open_generator(
    name: str,
    *,
    threads: int,
    backend: Backend = "onnx",
    device: str | None = None,
    weights: Path = registry.WEIGHTS,
) -> SplitGenerator:
    """Load a model after checking its files; device is torch's, by default CUDA where there is one, else the CPU."""
    if backend not in BACKENDS:
        raise InvalidRequest.field("backend", backend, ", ".join(BACKENDS))
    if backend == "onnx":
        return registry.open_generator(name, threads=threads, weights=weights)
    card = registry.load_card(name, weights)
    mixed = card.precision == "mixed"
    if mixed and "base_float" not in card.files:
        raise InvalidRequest.field("backend", backend, f"onnx for {name}, whose weights are kept for int8 products")
    paths = registry.needed_files(card, weights)
    from core_cloud.models.cascade_torch import CascadeTorch

    return CascadeGenerator(card, CascadeTorch(paths, threads=threads, device=device, mixed=mixed))
