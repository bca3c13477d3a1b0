"""What measures the models must itself be right: tracking, intervals, the opinion formula, weight storage."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra (torch) is not installed")
onnx = pytest.importorskip("onnx", reason="the training extra (onnx) is not installed")

from core_cloud.models import torch_backend  # noqa: E402
from core_cloud.models.upsampler import SpaceTimeUpsampler, UpsamplerParams  # noqa: E402
from training import export  # noqa: E402
from training.evaluate import Share, contact_sheet, mean_opinion, tracked_direction, wilson  # noqa: E402
from training.grammar import BACKGROUNDS, COLOURS, Attributes  # noqa: E402
from training.world import render, scene_batch  # noqa: E402


@pytest.mark.parametrize("motion", ["left", "right", "up", "down"])
def test_tracking_reads_the_direction_of_rendered_clips(motion: str) -> None:
    scenes = [Attributes("star", colour, "big", motion, "plain") for colour in COLOURS if colour != "white"]
    clips = render(scene_batch(scenes, 4), 24, 64, 64).numpy()
    found = [tracked_direction(clip, scene.indices()[1]) for clip, scene in zip(clips, scenes, strict=True)]
    assert found == [motion] * len(scenes)


def test_tracking_survives_the_backgrounds() -> None:
    scenes = [Attributes("circle", "red", "big", "left", background) for background in BACKGROUNDS]
    clips = render(scene_batch(scenes, 4), 24, 64, 64).numpy()
    hits = sum(tracked_direction(clip, 0) == "left" for clip in clips)
    assert hits >= len(scenes) - 1


def test_the_interval_is_wilsons() -> None:
    share = wilson(8, 10)
    assert (share.value, share.n) == (0.8, 10)
    assert share.low == pytest.approx(0.490, abs=2e-3)
    assert share.high == pytest.approx(0.943, abs=2e-3)
    assert wilson(0, 5).low == 0.0
    assert wilson(5, 5).high == 1.0


def test_opinion_spans_its_scale_and_rewards_size() -> None:
    best = {"shape": Share(1.0, 1.0, 1.0, 9)}
    assert mean_opinion(best, 256).value == 5.0
    assert mean_opinion(best, 128).value == 4.5
    assert mean_opinion({"shape": Share(0.0, 0.0, 0.0, 9)}, 256).value == 1.0


def test_int8_storage_is_within_half_a_step_per_channel() -> None:
    values = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)
    values[2] *= 50
    whole, scale = export.quantised(values, axis=0)
    assert np.abs(whole * scale[:, None] - values).max(axis=1) == pytest.approx(scale / 2, rel=0.2)


def test_exported_weights_come_back_by_name(tmp_path: Path) -> None:
    model = SpaceTimeUpsampler(UpsamplerParams(channels=16, depth=2))
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn(value.shape))
    with pytest.warns(Warning):
        export.export_upsampler(model, tmp_path / "raw.onnx")
    export.store_half(tmp_path / "raw.onnx", tmp_path / "half.onnx")
    assert (tmp_path / "half.onnx").stat().st_size < 0.7 * (tmp_path / "raw.onnx").stat().st_size
    again = torch_backend.load_upsampler(tmp_path / "half.onnx").state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(again[name], value, atol=2e-3), name


def test_a_contact_sheet_puts_rows_under_each_other() -> None:
    clip = np.zeros((24, 128, 128, 3), dtype=np.uint8)
    assert contact_sheet([[clip, clip], [clip, clip]], 4, 32).shape == (64, 256, 3)
