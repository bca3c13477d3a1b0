"""Plans: time shared out, kept and refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adaptivegen.errors import InvalidRequest
from training.plan import CPU, CUDA, FULL_MINUTES, load_plan, planned, save_plan


@pytest.mark.parametrize(("device", "whole"), [("cpu", CPU), ("cuda", CUDA)])
def test_the_full_time_is_the_plan_as_written(device: str, whole: object) -> None:
    assert planned(device, None) == whole
    assert planned(device, FULL_MINUTES[device]) == whole


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_stages_leave_time_for_what_does_not_scale(device: str) -> None:
    plan = planned(device, None)
    assert sum(plan.shares.values()) < 0.75 * FULL_MINUTES[device]


def test_less_time_shortens_the_stepped_stages_alike() -> None:
    plan = planned("cpu", 80)
    factor = plan.shares["base"] / CPU.shares["base"]
    assert sum(plan.shares.values()) == pytest.approx(sum(CPU.shares.values()) - 40)
    for name, share in plan.shares.items():
        assert share == pytest.approx(CPU.shares[name] * factor)


@pytest.mark.parametrize(("device", "minutes", "named"), [("tpu", None, "device"), ("cpu", 10.0, "minutes")])
def test_what_cannot_be_planned_is_refused(device: str, minutes: float | None, named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        planned(device, minutes)
    assert caught.value.param == named


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    for plan in (CPU.with_steps("base", 123), replace(CUDA, device="cuda:1")):
        save_plan(plan, tmp_path / "plan.json")
        assert load_plan(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cloud": {"dim": 1}}'])
def test_a_file_that_is_no_plan_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InvalidRequest, match=r"plan\.json"):
        load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("part", ["batches", "shares"])
def test_a_plan_from_before_a_stage_was_added_is_refused_with_its_name(tmp_path: Path, part: str) -> None:
    left = {name: value for name, value in getattr(CPU, part).items() if name != "finder"}
    older: dict[str, Any] = {part: left}
    save_plan(replace(CPU, **older), tmp_path / "plan.json")
    with pytest.raises(InvalidRequest, match=r"plan\.json.*finder"):
        load_plan(tmp_path / "plan.json")


def test_the_shipped_weights_plan_can_be_repeated_step_by_step() -> None:
    plan = load_plan(Path(__file__).parents[3] / "training" / "shipped-plan.json")
    assert plan.device == "cpu"
    assert set(plan.steps) == set(plan.stepped)
