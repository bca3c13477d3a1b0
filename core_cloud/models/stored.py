"""Weights of exported ONNX files as torch networks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from adaptivegen.errors import GenerationFailed
from core_cloud.models.convolution import FrameDoubler, SharpenerParams


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


def stored_params(path: Path) -> dict[str, Any]:
    """What the network of a file is built from, which its weights do not all tell."""
    kept = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    if "params" not in kept:
        raise GenerationFailed(f"weights file {path.name} does not say what its network is built from")
    params: dict[str, Any] = json.loads(kept["params"])
    return params


def block_count(weights: dict[str, Tensor], prefix: str) -> int:
    """How many numbered blocks the names under a prefix mention."""
    return 1 + max(int(name.split(".")[1]) for name in weights if name.startswith(prefix))


def filled(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    wanted = model.state_dict()
    missing = sorted(set(wanted) - set(weights))
    if missing:
        raise GenerationFailed(f"weights file lacks {missing[0]} and {len(missing) - 1} more")
    model.load_state_dict({name: weights[name].view(value.shape) for name, value in wanted.items()})
    return model.eval()


def load_doubler(path: Path) -> nn.Module:
    """The frame doubler of an exported file."""
    weights = stored_weights(path)
    params = SharpenerParams(channels=weights["stem.weight"].shape[0], depth=block_count(weights, "blocks."))
    return filled(FrameDoubler(params), weights)
