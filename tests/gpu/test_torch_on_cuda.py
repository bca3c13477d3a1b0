"""The torch backend on a CUDA device; skips itself, with the reason, where there is none."""

import numpy as np
import pytest

from adaptivegen.models.base import GenerationInput
from adaptivegen.models.registry import load_card

torch = pytest.importorskip("torch", reason="torch is not installed")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

from core_cloud.models.registry import open_generator  # noqa: E402


def test_cuda_and_onnx_make_nearly_the_same_clip() -> None:
    limits = load_card("pocket-cloud").limits
    width, _, height = limits.sizes[0].partition("x")
    request = GenerationInput(
        prompt="a red circle moves left over a sunset sky",
        seed=1,
        width=int(width),
        height=int(height),
        frames=limits.frame_counts()[0],
        steps=4,
        guidance=limits.guidance_default,
    )
    clips = [
        generator.generate(request, on_step=lambda step: None, should_stop=lambda: False)
        for generator in (
            open_generator("pocket-cloud", threads=2, backend="onnx"),
            open_generator("pocket-cloud", threads=2, backend="torch", device="cuda"),
        )
    ]
    assert np.abs(clips[0].astype(int) - clips[1].astype(int)).mean() < 2.0


@pytest.mark.parametrize(("name", "off"), [("pocket-cloud-mixed", 4.0), ("pocket-cloud-pruned", 2.0)])
def test_variants_run_on_cuda_and_make_what_they_make_elsewhere(name: str, off: float) -> None:
    request = GenerationInput("a red circle moves left", 1, 128, 128, 24, 4, 1.5)
    clips = [
        generator.generate(request, on_step=lambda step: None, should_stop=lambda: False)
        for generator in (
            open_generator(name, threads=2, backend="onnx"),
            open_generator(name, threads=2, backend="torch", device="cuda"),
        )
    ]
    assert np.abs(clips[0].astype(int) - clips[1].astype(int)).mean() < off
