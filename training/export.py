"""Exports trained checkpoints to ONNX files for the CPU, compactly, and writes their model cards.

Weights are stored as float16 or int8 with one scale per output channel and widened once at load, so a file is a half
or a quarter of its float32 size and runs at float32 speed; `dynamic_int8` computes in int8 as well.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from adaptivegen.models.card import CardFile
from core_cloud.models.convolution import FrameDoubler
from core_cloud.models.enlarge import LOW, SpaceTimeUpsampler
from core_cloud.models.finder import Finder
from core_cloud.models.layout import FRAMES, LAYOUT_VALUES, Planner, PlannerStep
from core_cloud.models.reader import SLOTS, Reader
from core_cloud.models.video import BaseTransformer, Conditions

SMALL = 1024  # tensors with fewer values stay float32


def _trace(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    names: Sequence[str],
    output: str | Sequence[str],
    path: Path,
    axes: dict[str, dict[int, str]],
    *,
    fold: bool = False,
) -> None:
    """Without folding the weights keep their parameters' names and layout, which the torch backend reads them by."""
    torch.onnx.export(
        model.eval(),
        inputs,
        str(path),
        input_names=list(names),
        output_names=[output] if isinstance(output, str) else list(output),
        opset_version=17,
        dynamo=False,
        dynamic_axes=axes,
        keep_initializers_as_inputs=False,
        do_constant_folding=fold,
    )


class _CleanOnly(nn.Module):
    """The base without the features that only training looks into; parameters keep their names."""

    def __init__(self, base: BaseTransformer) -> None:
        super().__init__()
        self.base = base

    def forward(self, noisy: Tensor, t: Tensor, *given: Tensor) -> Tensor:
        clean: Tensor = self.base(noisy, t, Conditions(*given))[0]
        return clean


def export_base(model: BaseTransformer, path: Path, *, fold: bool) -> None:
    """Graph: noisy (B, 8, 48, 48, 3), t (B,) and the fields of `Conditions` -> clean, each clip at its own time.

    Fold constants where `dynamic_int8` follows: it looks for matrices that enter a product directly.
    """
    p = model.params
    clip = torch.zeros(1, p.frames, p.size, p.size, p.channels)
    layout = torch.zeros(1, SLOTS, p.frames, LAYOUT_VALUES)
    given = Conditions(torch.zeros(1, SLOTS, p.slot_dim), torch.ones(1), layout, clip, torch.zeros(1, p.frames))
    names = ("noisy", "t", *Conditions._fields)
    axes = {name: {0: "clips"} for name in (*names, "clean")}
    _trace(_CleanOnly(model), (clip, torch.zeros(1), *given), names, "clean", path, axes, fold=fold)
    _rename(path, "base.")
    _say_params(path, asdict(p))


def _say_params(path: Path, params: dict[str, Any]) -> None:
    """Write what the network is built from into its file; the weights do not all tell (see `stored_params`)."""
    graph = onnx.load(path)
    helper.set_model_props(graph, {"params": json.dumps(params)})
    onnx.save(graph, path)


def export_planner(planner: Planner, path: Path) -> None:
    """Graph of one step: noisy (1, 4, 8, 9), t (1,), slots (1, 4, 192), known (1, 4, 8, 9), told (1, 4, 8) -> clean,
    layout; weights as float16."""
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "planner.onnx"
        noisy = torch.zeros(1, SLOTS, FRAMES, LAYOUT_VALUES)
        inputs = (noisy, torch.zeros(1), torch.zeros(1, SLOTS, planner.params.slot_dim), noisy, noisy[..., 0])
        _trace(PlannerStep(planner), inputs, ("noisy", "t", "slots", "known", "told"), ("clean", "layout"), raw, {})
        store_half(raw, path)


def export_finder(finder: Finder, path: Path) -> None:
    """Graph: frames (1, T, 48, 48, 3), slots (1, 4, 192) -> found (1, 3, T, 6); weights as float16."""
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "finder.onnx"
        inputs = (
            torch.zeros(1, 2, finder.params.size, finder.params.size, 3),
            torch.zeros(1, SLOTS, finder.params.slot_dim),
        )
        axes = {"frames": {1: "count"}, "found": {2: "count"}}
        _trace(finder, inputs, ("frames", "slots"), "found", raw, axes)
        store_half(raw, path)


def export_upsampler(model: SpaceTimeUpsampler, path: Path) -> None:
    """Graph: low (1, 8, 48, 48, 3), level (1,), slots (1, 4, 192) -> high (1, 24, 128, 128, 3)."""
    inputs = (torch.zeros(1, 8, LOW, LOW, 3), torch.zeros(1), torch.zeros(1, SLOTS, model.params.slot_dim))
    _trace(model, inputs, ("low", "level", "slots"), "high", path, {})


class _ReadOne(nn.Module):
    """The reader for one caption of any length."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, tokens: Tensor) -> Tensor:
        slots: Tensor = self.reader(tokens, torch.ones_like(tokens[:, :, 0]))
        return slots


def export_reader(reader: Reader, path: Path) -> None:
    """Graph: tokens (1, L, 384) -> slots (1, 4, 192); weights as float16."""
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "reader.onnx"
        tokens = torch.zeros(1, 16, reader.mean.shape[0])
        _trace(_ReadOne(reader), (tokens,), ("tokens",), "slots", raw, {"tokens": {1: "length"}})
        store_half(raw, path)


def _rename(path: Path, prefix: str) -> None:
    """Drop the prefix that a wrapping module put before the names of the weights."""
    model = onnx.load(path)
    for weight in model.graph.initializer:
        weight.name = weight.name.removeprefix(prefix)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = name.removeprefix(prefix)
    onnx.save(model, path)


def export_doubler(model: FrameDoubler, path: Path) -> None:
    """Graph: frames (N, 128, 128, 3) -> doubled (N, 256, 256, 3)."""
    axes = {"frames": {0: "frames"}, "doubled": {0: "frames"}}
    _trace(model, (torch.zeros(2, 128, 128, 3),), ("frames",), "doubled", path, axes)


def share_constants(model: onnx.ModelProto) -> None:
    """Keep one copy of large constants that the tracer repeated at every use (the rotary tables of each block)."""
    names: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    for node in list(model.graph.node):
        if node.op_type != "Constant" or not node.attribute or len(node.attribute[0].t.raw_data) < SMALL:
            continue
        tensor = node.attribute[0].t
        key = str((tensor.data_type, list(tensor.dims))).encode() + tensor.raw_data
        if key not in names:
            names[key] = f"shared.{len(names)}"
            kept = onnx.TensorProto()
            kept.CopyFrom(tensor)
            kept.name = names[key]
            model.graph.initializer.append(kept)
        renamed[node.output[0]] = names[key]
        model.graph.node.remove(node)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name in renamed:
                node.input[index] = renamed[name]


def store_half(source: Path, target: Path) -> None:
    """Keep large weights as float16 followed by a cast to float32."""
    model = onnx.load(source)
    share_constants(model)
    for weight in list(model.graph.initializer):
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < SMALL:
            continue
        stored = f"{weight.name}.half"
        model.graph.initializer.remove(weight)
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), stored))
        cast = helper.make_node("Cast", [stored], [weight.name], to=TensorProto.FLOAT, name=f"{weight.name}.widen")
        model.graph.node.insert(0, cast)
    onnx.save(model, target)


def quantised(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with one scale per index of the axis: values ~ int8 * scale."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    scale = np.maximum(np.abs(values).max(axis=others) / 127.0, 1e-8).astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = -1
    return np.rint(values / scale.reshape(shape)).astype(np.int8), scale


def store_int8(source: Path, target: Path) -> None:
    """Keep large matrices as int8 with a scale per output channel, widened to float32 at load."""
    model = onnx.load(source)
    share_constants(model)
    for weight in list(model.graph.initializer):
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < SMALL or values.ndim not in (2, 4):
            continue
        whole, scale = quantised(values, axis=0)  # unfolded weights are (out, in, ...)
        name = weight.name
        model.graph.initializer.remove(weight)
        model.graph.initializer.append(numpy_helper.from_array(whole, f"{name}.int8"))
        model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(len(scale), dtype=np.int8), f"{name}.zero"))
        widen = helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale", f"{name}.zero"], [name], axis=0)
        model.graph.node.insert(0, widen)
    onnx.save(model, target)


def dynamic_int8(source: Path, target: Path) -> None:
    """Matrix products in int8 with activations quantised as they come; what stays float is stored as float16."""
    quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul"])
    store_half(target, target)


def card_file(path: Path, weights: Path) -> CardFile:
    """Name, size and digest of a file under the weights folder."""
    content = path.read_bytes()
    return CardFile(
        path=path.relative_to(weights).as_posix(), sha256=hashlib.sha256(content).hexdigest(), bytes=len(content)
    )
