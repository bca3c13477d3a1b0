"""The whole training run in miniature: every stage, an interruption, and models that open and generate."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra (torch) is not installed")
pytest.importorskip("joblib", reason="the training extra (joblib) is not installed")

from adaptivegen.models.base import Clip, GenerationInput, Generator, StepReport, Task  # noqa: E402
from adaptivegen.models.registry import WEIGHTS, load_card, open_generator  # noqa: E402
from adaptivegen.models.slots import SlotEncoder  # noqa: E402
from core_cloud.models import registry as cloud_registry  # noqa: E402
from core_cloud.models.layout import LAYOUT_VALUES  # noqa: E402
from core_cloud.models.reader import SLOTS  # noqa: E402
from core_cloud.models.video import BaseParams, BaseTransformer, Conditions  # noqa: E402
from training.commands import main  # noqa: E402
from training.fit import read_checkpoint  # noqa: E402
from training.plan import CPU, Width, save_plan  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the tracer of torch warns of every shape it takes for constant

TINY = replace(
    CPU,
    cloud=Width(64, 2),
    reader_captions=128,
    reader_passes=1,
    clips=24,
    high_clips=8,
    doubled_clips=4,
    judge_clips=32,
    judge_passes=1,
    evaluated=2,
    batches={"planner": 4, "finder": 4, "base": 4, "pruned": 4, "draft": 2, "upsampler": 2, "doubler": 2},
    steps={"planner": 20, "finder": 20, "base": 20, "pruned": 20, "draft": 20, "upsampler": 20, "doubler": 20},
)


SIDES = {"pocket-draft": 128, "pocket-cloud": 256, "pocket-cloud-mixed": 256, "pocket-cloud-pruned": 256}


def run(folder: Path, weights: Path, *more: str) -> int:
    return main([*more, "--folder", str(folder), "--weights", str(weights), "--no-compile", "--threads", "2"])


@pytest.mark.timeout(600)
def test_a_tiny_run_goes_through_every_stage_and_its_models_generate(tmp_path: Path) -> None:
    folder, weights = tmp_path / "run", tmp_path / "weights"
    (weights / "text").mkdir(parents=True)
    for name in ("encoder.onnx", "tokenizer.json"):
        shutil.copy(WEIGHTS / "text" / name, weights / "text" / name)
    save_plan(TINY, tmp_path / "tiny.json")
    for stage in ("reader", "data", "planner", "base"):
        assert run(folder, weights, stage, "--plan", str(tmp_path / "tiny.json")) == 0
    before = (folder / "cloud" / "base.pt").read_bytes()
    assert run(folder, weights) == 0  # goes on with the folder's own plan, and does nothing twice
    assert (folder / "cloud" / "base.pt").read_bytes() == before
    assert read_checkpoint(folder / "draft" / "base.pt")["step"] == 20
    for curve in ("cloud/base.png", "draft/base.png", "upsampler.png", "doubler.png"):
        assert (folder / curve).stat().st_size > 1000
    report = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "### What a final keeps of its draft" in report
    assert run(folder, weights, "refining") == 0
    assert "| 0.5 | 4 |" in (folder / "report" / "refining.md").read_text(encoding="utf-8")
    for name, side in SIDES.items():
        card = load_card(name, weights)
        assert "mos" in card.quality
        assert card.limits.steps_default in {score.steps for score in card.scores}
        clip = generate(open_generator(name, threads=2, weights=weights), side)
        assert clip.shape == (24, side, side, 3)
    for name in ("pocket-cloud", "pocket-cloud-pruned", "pocket-cloud-mixed"):
        backends = (
            cloud_registry.open_generator(name, threads=2, backend="onnx", weights=weights),
            cloud_registry.open_generator(name, threads=2, backend="torch", device="cpu", weights=weights),
        )
        one, other = (generate(model, 128, task="interpolate") for model in backends)
        assert np.abs(one.astype(int) - other).mean() < (3.0 if name.endswith("mixed") else 1.0), name
    check_slots(SlotEncoder(weights / "text", threads=1))


def generate(model: Generator, side: int, task: Task = "restyle") -> Clip:
    start = None if task == "restyle" else np.full((2, 32, 32, 3), 200, np.uint8)
    request = GenerationInput("a red ball", 1, side, side, 24, 2, 1.5)
    reports: list[StepReport] = []
    clip = model.generate(request, start=start, task=task, on_step=reports.append, should_stop=lambda: False)
    assert reports[0].familiarity is not None
    return clip


def check_slots(encoder: SlotEncoder) -> None:
    """Any text gives slots, the same every time, and says how familiar it is."""
    for prompt in ("", "x " * 3000, "\u00e9\u4e2d\u6587 \U0001f600", "[SEP] [PAD]"):
        text = encoder.encode(prompt)
        assert text.slots.shape == (4, 192)
        assert np.isfinite(text.slots).all()
        assert -1.0 <= text.familiarity <= 1.0
    known, strange = (encoder.encode(text) for text in ("a red circle moves left over the sea", "quarterly tax report"))
    assert known.familiarity > 0.75 > 0.5 > strange.familiarity
    np.testing.assert_array_equal(encoder.encode("A Red Ball").slots, encoder.encode("a red ball").slots)
    assert np.linalg.norm(known.pooled) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler, and there is none")
def test_a_pruned_base_compiles_as_it_is_trained() -> None:
    model = BaseTransformer(BaseParams(dim=64, depth=2, heads=1, kv_pool=2, attending=2))
    given = Conditions(
        torch.randn(2, SLOTS, 192),
        torch.ones(2),
        torch.randn(2, SLOTS, 8, LAYOUT_VALUES),
        torch.zeros(2, 8, 48, 48, 3),
        torch.zeros(2, 8),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made, _ = torch.compile(model)(torch.randn(2, 8, 48, 48, 3), torch.rand(2), given)
    made.float().square().mean().backward()
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)


def test_a_plan_for_another_device_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_plan(replace(TINY, device="cuda"), tmp_path / "tiny.json")
    assert run(tmp_path / "run", tmp_path, "--plan", str(tmp_path / "tiny.json")) == 2
    assert "device is 'cpu'" in capsys.readouterr().out


def test_a_budget_that_is_too_short_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "run", tmp_path, "--minutes", "3") == 2
    assert "minutes is 3" in capsys.readouterr().out
