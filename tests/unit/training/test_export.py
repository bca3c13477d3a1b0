"""Weights in files: storage within half a step, names that come back, graphs that compute what the networks do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra (torch) is not installed")
onnx = pytest.importorskip("onnx", reason="the training extra (onnx) is not installed")

from adaptivegen.errors import GenerationFailed  # noqa: E402
from adaptivegen.models.layout import STEPS, Found, LayoutPlanner, found_in  # noqa: E402
from adaptivegen.models.runtime import open_session  # noqa: E402
from adaptivegen.models.slots import PromptSlots  # noqa: E402
from adaptivegen.models.starts import Arranged  # noqa: E402
from core_cloud.models import cascade_torch  # noqa: E402
from core_cloud.models.enlarge import SpaceTimeUpsampler, UpsamplerParams  # noqa: E402
from core_cloud.models.finder import Finder, FinderParams  # noqa: E402
from core_cloud.models.layout import LAYOUT_VALUES, THING_VALUES, Planner, PlannerParams, scaled, unscaled  # noqa: E402
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


WHOLE = BaseParams(dim=64, depth=2, heads=1)
PRUNED = BaseParams(dim=64, depth=4, heads=1, kv_pool=2, attending=3)


@pytest.mark.parametrize("params", [WHOLE, PRUNED])
@pytest.mark.parametrize("store", [export.store_half, export.store_int8])
def test_the_base_computes_the_same_in_every_form_and_for_every_clip_of_a_batch(
    tmp_path: Path, store: Any, params: BaseParams
) -> None:
    model = shaken(BaseTransformer(params))
    export.export_base(model, tmp_path / "raw.onnx", fold=False)
    store(tmp_path / "raw.onnx", tmp_path / "kept.onnx")
    generator = torch.Generator().manual_seed(0)
    clip, known = torch.randn(2, 3, 8, 48, 48, 3, generator=generator)
    mask = torch.zeros(3, 8)
    mask[0, 0] = 1.0
    slots = torch.randn(3, SLOTS, 192, generator=generator)
    layout = torch.zeros(3, SLOTS, 8, LAYOUT_VALUES)
    layout[:, 1, :, :THING_VALUES] = torch.tensor([0.4, 0.6, 0.2, 1.0, 0.0, 1.0])
    given, t = Conditions(slots, torch.tensor([1.0, 0.0, 1.0]), layout, known, mask), torch.tensor([0.0, 0.4, 0.9])
    with torch.no_grad():
        wanted = model(clip, t, given)[0].numpy()
        by_name = cascade_torch.load_base(tmp_path / "kept.onnx")(clip, t, given)[0].numpy()
    feed = {name: value.numpy() for name, value in {"noisy": clip, "t": t, **given._asdict()}.items()}
    (made,) = open_session(tmp_path / "kept.onnx", threads=1).run(None, feed)
    scale = np.abs(wanted).mean()
    for row in range(3):
        assert np.abs(made - wanted)[row].mean() < 0.02 * scale
        assert np.abs(by_name - wanted)[row].mean() < 0.02 * scale


def test_a_base_for_int8_products_is_near_and_takes_batches_too(tmp_path: Path) -> None:
    model = shaken(BaseTransformer(WHOLE))
    export.export_base(model, tmp_path / "raw.onnx", fold=True)
    export.dynamic_int8(tmp_path / "raw.onnx", tmp_path / "kept.onnx")
    generator = torch.Generator().manual_seed(0)
    shapes = {"noisy": (2, 8, 48, 48, 3), "slots": (2, SLOTS, 192), "layout": (2, SLOTS, 8, LAYOUT_VALUES)}
    feed = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    feed |= {"t": torch.tensor([0.1, 0.7]), "keep": torch.ones(2)}
    feed |= {"known": torch.zeros(2, 8, 48, 48, 3), "mask": torch.zeros(2, 8)}
    with torch.no_grad():
        given = Conditions(**{name: feed[name] for name in Conditions._fields})
        wanted = model(feed["noisy"], feed["t"], given)[0].numpy()
    session = open_session(tmp_path / "kept.onnx", threads=1)
    (made,) = session.run(None, {name: value.numpy() for name, value in feed.items()})
    assert np.abs(made - wanted).mean() < 0.1 * np.abs(wanted).mean()


def test_a_file_that_does_not_say_what_its_network_is_built_from_is_refused(tmp_path: Path) -> None:
    export.export_reader(shaken(Reader(depth=1)), tmp_path / "reader.onnx")
    with pytest.raises(GenerationFailed, match=r"reader\.onnx does not say"):
        cascade_torch.load_base(tmp_path / "reader.onnx")
    graph = onnx.load(tmp_path / "reader.onnx")
    onnx.helper.set_model_props(graph, {"params": '{"layers": 3}'})
    onnx.save(graph, tmp_path / "strange.onnx")
    with pytest.raises(GenerationFailed, match=r"strange\.onnx is of another kind of base: .*layers"):
        cascade_torch.load_base(tmp_path / "strange.onnx")


def test_the_planner_plans_the_same_in_its_file(tmp_path: Path) -> None:
    planner = shaken(Planner(PlannerParams(dim=64, depth=1, heads=1)))
    with torch.no_grad():
        planner.head.bias += torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.5, 0.0, 0.0]).repeat(8)
    export.export_planner(planner, tmp_path / "planner.onnx")
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(1, SLOTS, 8, LAYOUT_VALUES, generator=generator)
    slots = torch.randn(1, SLOTS, 192, generator=generator)
    known, told = torch.zeros(1, SLOTS, 8, LAYOUT_VALUES), torch.zeros(1, SLOTS, 8)
    known[:, 0, 0, :THING_VALUES], told[:, 0, 0] = torch.tensor([0.3, 0.6, 0.2, 1.0, 0.0, 1.0]), 1.0
    z = noise
    with torch.no_grad():
        for step in range(STEPS):
            clean = planner(z, torch.tensor([step / STEPS]), slots, scaled(known), told)
            z = z + (clean - z) / (STEPS - step)
        wanted = unscaled(z).numpy()
    text = PromptSlots(slots[0].numpy(), np.zeros(384, np.float32), 1.0)
    runtime = LayoutPlanner(tmp_path / "planner.onnx", finder_file(tmp_path, sure=1.0), threads=1)
    made = runtime.plan(text, noise[0].numpy(), Found(known[0].numpy(), told[0].numpy()))
    assert wanted[..., 5].any()
    assert not made[..., THING_VALUES:].any()  # what lies on the ground is in the frames
    np.testing.assert_allclose(made[..., :THING_VALUES], wanted[0, ..., :THING_VALUES], atol=0.02)
    free = runtime.plan(text, noise[0].numpy())
    assert free[-1, :, THING_VALUES:].any() and not free[:-1, :, THING_VALUES:].any()


def test_a_planner_of_another_form_of_layout_is_refused_by_name(tmp_path: Path) -> None:
    form = ["batch", 4, 8, 6]
    noisy, layout = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, form) for n in ("noisy", "layout"))
    nothing = onnx.helper.make_node("Identity", ["noisy"], ["layout"])
    graph = onnx.helper.make_graph([nothing], "older", [noisy], [layout])
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, ir_version=10, opset_imports=opsets), tmp_path / "older.onnx")
    with pytest.raises(GenerationFailed, match=r"older\.onnx plans layouts of \(4, 8, 6\)"):
        LayoutPlanner(tmp_path / "older.onnx", finder_file(tmp_path, sure=1.0), threads=1)


def finder_file(folder: Path, sure: float) -> Path:
    """A finder that is this sure of everything."""
    finder = shaken(Finder(FinderParams()))
    with torch.no_grad():
        finder.tell[-1].bias[3] = 1000.0 * sure
    export.export_finder(finder, folder / "finder.onnx")
    return folder / "finder.onnx"


@pytest.mark.parametrize("held", [[0], [0, 1, 2, 3], [0, 7]])
def test_things_are_found_in_the_frames_that_are_held_only(tmp_path: Path, held: list[int]) -> None:
    finder = finder_file(tmp_path, sure=1.0)
    export.export_planner(shaken(Planner(PlannerParams(dim=64, depth=1, heads=1))), tmp_path / "planner.onnx")
    runtime = LayoutPlanner(tmp_path / "planner.onnx", finder, threads=1)
    rng = np.random.default_rng(0)
    mask = np.zeros(8, np.float32)
    mask[held] = 1.0
    given = Arranged(rng.standard_normal((8, 48, 48, 3), dtype=np.float32), mask)
    text = PromptSlots(rng.standard_normal((4, 192), dtype=np.float32), np.zeros(384, np.float32), 1.0)
    found = runtime.find(text, given)
    assert found is not None
    np.testing.assert_array_equal(found.told, np.concatenate([np.tile(mask, (3, 1)), np.zeros((1, 8))]))
    assert (found.layout[..., 5] == found.told).all()
    other = Arranged(np.where(mask[:, None, None, None] > 0, given.clip, 0.0).astype(np.float32), mask)
    again = runtime.find(text, other)
    assert again is not None
    np.testing.assert_array_equal(again.layout, found.layout)


def test_each_object_is_told_in_the_frames_it_was_found_in() -> None:
    held = np.array([True, False, False, False, False, False, False, True])
    values = np.zeros((3, 2, 6), np.float32)
    values[..., 0] = [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]
    values[..., 5] = [[-1.0, 2.0], [-3.0, -1.0], [4.0, 0.1]]
    found = found_in(values, held)
    assert found is not None
    assert [tuple(place) for place in np.argwhere(found.told)] == [(0, 7), (2, 0), (2, 7)]
    np.testing.assert_allclose(found.layout[found.told > 0][:, 0], [0.2, 0.5, 0.6])
    np.testing.assert_array_equal(found.layout[..., 5], found.told)
    assert not found.layout[found.told == 0].any()


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    finder = finder_file(tmp_path, sure=-1.0)
    export.export_planner(shaken(Planner(PlannerParams(dim=64, depth=1, heads=1))), tmp_path / "planner.onnx")
    text = PromptSlots(np.zeros((4, 192), np.float32), np.zeros(384, np.float32), 1.0)
    given = Arranged(np.zeros((8, 48, 48, 3), np.float32), np.ones(8, np.float32))
    assert LayoutPlanner(tmp_path / "planner.onnx", finder, threads=1).find(text, given) is None


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
