"""Which backend the worker's model child opens."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from core_cloud.engine.child import choose_backend


def torch(*, cuda: bool) -> ModuleType:
    module = ModuleType("torch")
    module.cuda = SimpleNamespace(is_available=lambda: cuda)  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize("asked", ["torch", "onnx"])
def test_a_backend_that_is_named_is_taken(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch(cuda=asked == "onnx"))
    assert choose_backend(asked) == asked


@pytest.mark.parametrize(
    ("installed", "expected"), [(torch(cuda=True), "torch"), (torch(cuda=False), "onnx"), (None, "onnx")]
)
def test_auto_is_torch_only_where_a_device_can_be_used(
    monkeypatch: pytest.MonkeyPatch, installed: ModuleType | None, expected: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", installed)  # None: the import fails
    assert choose_backend("auto") == expected
