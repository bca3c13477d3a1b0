"""Weights in files: storage within half a step, names that come back, graphs that compute what the networks do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra (torch) is not installed")
onnx = pytest.importorskip("onnx", reason="the training extra (onnx) is not installed")

from adaptivegen.models.layout import STEPS, LayoutPlanner  # noqa: E402
from adaptivegen.models.runtime import open_session  # noqa: E402
from adaptivegen.models.slots import PromptSlots  # noqa: E402
from core_cloud.models import cascade_torch  # noqa: E402
from core_cloud.models.enlarge import SpaceTimeUpsampler, UpsamplerParams  # noqa: E402
from core_cloud.models.layout import Planner, PlannerParams, unscaled  # noqa: E402
from core_cloud.models.reader import SLOTS, Reader  # noqa: E402
from core_cloud.models.video import BaseParams, BaseTransformer, Conditions  # noqa: E402
from tests.unit.training.shaken import shaken  # noqa: E402
from training import export  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the tracer warns of every shape it takes for constant


def test_int8_storage_is_within_half_a_step_per_channel() -> None:
    values = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)
    values[2] *= 50
    whole, scale = export.quantised(values, axis=0)
    assert np.abs(whole * scale[:, None] - values).max(axis=1) == pytest.approx(scale / 2, rel=0.2)


def test_exported_weights_come_back_by_name(tmp_path: Path) -> None:
    model = shaken(SpaceTimeUpsampler(UpsamplerParams(channels=16, depth=2)))
    export.export_upsampler(model, tmp_path / "raw.onnx")
    export.store_half(tmp_path / "raw.onnx", tmp_path / "half.onnx")
    assert (tmp_path / "half.onnx").stat().st_size < 0.7 * (tmp_path / "raw.onnx").stat().st_size
    again = cascade_torch.load_upsampler(tmp_path / "half.onnx").state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(again[name], value, atol=2e-3), name


@pytest.mark.parametrize("store", [export.store_half, export.store_int8])
def test_the_base_computes_the_same_in_every_form(tmp_path: Path, store: Any) -> None:
    model = shaken(BaseTransformer(BaseParams(dim=64, depth=2, heads=1)))
    export.export_base(model, tmp_path / "raw.onnx", fold=False)
    store(tmp_path / "raw.onnx", tmp_path / "kept.onnx")
    generator = torch.Generator().manual_seed(0)
    clip, known = torch.randn(2, 1, 8, 48, 48, 3, generator=generator)
    mask = torch.zeros(1, 8)
    mask[0, 0] = 1.0
    slots = torch.randn(1, SLOTS, 192, generator=generator)
    layout = torch.zeros(1, 3, 8, 6)
    layout[:, 1] = torch.tensor([0.4, 0.6, 0.2, 1.0, 0.0, 1.0])
    given, t = Conditions(slots, torch.ones(1), layout, known, mask), torch.tensor([0.4])
    with torch.no_grad():
        wanted = model(clip, t, given)[0].numpy()
        by_name = cascade_torch.load_base(tmp_path / "kept.onnx")(clip, t, given)[0].numpy()
    feed = {name: value.numpy() for name, value in {"noisy": clip, "t": t, **given._asdict()}.items()}
    (made,) = open_session(tmp_path / "kept.onnx", threads=1).run(None, feed)
    scale = np.abs(wanted).mean()
    assert np.abs(made - wanted).mean() < 0.02 * scale
    assert np.abs(by_name - wanted).mean() < 0.02 * scale


def test_the_planner_plans_the_same_in_its_file(tmp_path: Path) -> None:
    planner = shaken(Planner(PlannerParams(dim=64, depth=1, heads=1)))
    with torch.no_grad():
        planner.head.bias += torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 1.0]).repeat(8)
    export.export_planner(planner, tmp_path / "planner.onnx")
    generator = torch.Generator().manual_seed(3)
    noise, slots = torch.randn(1, 3, 8, 6, generator=generator), torch.randn(1, SLOTS, 192, generator=generator)
    z = noise
    with torch.no_grad():
        for step in range(STEPS):
            clean = planner(z, torch.tensor([step / STEPS]), slots)
            z = z + (clean - z) / (STEPS - step)
        wanted = unscaled(z).numpy()
    text = PromptSlots(slots[0].numpy(), np.zeros(384, np.float32), 1.0)
    made = LayoutPlanner(tmp_path / "planner.onnx", threads=1).plan(text, noise[0].numpy())
    assert wanted[..., 5].any()
    np.testing.assert_allclose(made, wanted[0], atol=0.02)


def test_the_reader_takes_captions_of_any_length(tmp_path: Path) -> None:
    reader = shaken(Reader())
    export.export_reader(reader, tmp_path / "reader.onnx")
    session = open_session(tmp_path / "reader.onnx", threads=1)
    for length in (3, 16, 64):
        tokens = torch.randn(1, length, 384, generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            wanted = reader(tokens, torch.ones(1, length)).numpy()
        (made,) = session.run(None, {"tokens": tokens.numpy()})
        assert np.abs(made - wanted).max() < 0.05
