"""The QoE function is the design's, and refuses settings that would make it meaningless."""

import math

import pytest

from adaptivegen.errors import SettingsInvalid
from adaptivegen.models.card import ModelCard, ScoredPlan
from scheduler.decide.qoe import Costs, QoeSettings, patience, qoe, quality_of, scarcity
from tests.unit.scheduler.builders import cloud_card, scored, with_scores


def test_patience_is_whole_up_to_the_best_and_gone_from_the_worst() -> None:
    assert patience(0.0, best_s=0.5, worst_s=10) == 1.0
    assert patience(0.5, best_s=0.5, worst_s=10) == 1.0
    assert patience(10.0, best_s=0.5, worst_s=10) == pytest.approx(0.0)
    assert patience(1e300, best_s=0.5, worst_s=10) == 0.0


def test_patience_falls_with_the_logarithm() -> None:
    middle_s = math.sqrt(5 * 120)
    assert patience(middle_s, best_s=5, worst_s=120) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("intent", "draft_s", "final_s", "expected"),
    [
        ("iterate", 0.1, 1.0, 1 + 0.5 * 2 + 0.5 * 3),
        ("render", 0.1, 1.0, 1 + 0.15 * 2 + 0.85 * 3),
        ("iterate", 0.1, None, 1 + 0.5 * 2),
        ("render", None, 1.0, 1 + 0.85 * 3),
        ("render", None, None, 1.0),
        ("render", 20.0, 500.0, 1.0),
        ("iterate", math.sqrt(0.5 * 10), math.sqrt(5 * 120), 1 + 0.5 * 2 * 0.5 + 0.5 * 3 * 0.5),
    ],
)
def test_the_design_function(intent: str, draft_s: float | None, final_s: float | None, expected: float) -> None:
    value = qoe(QoeSettings(), intent=intent, draft_quality=3, draft_s=draft_s, final_quality=4, final_s=final_s)
    assert value == pytest.approx(expected)


MODEL = with_scores(
    cloud_card(mos=4.5),
    scored("cloud", 16, 256, 4.8),
    scored("cloud", 4, 256, 4.0),
    scored("cloud", 12, 128, 4.2),
    scored("refine", 4, 256, 4.6),
)


@pytest.mark.parametrize(
    ("plan", "steps", "side", "expected"),
    [
        ("cloud", 16, 256, 4.8),
        ("cloud", 8, 256, 4.4),  # in the middle of 4 and 16 by the logarithm
        ("cloud", 1, 256, 4.0),
        ("cloud", 60, 256, 4.8),
        ("cloud", 12, 128, 4.2),
        ("cloud", 4, 64, 4.2),
        ("cloud", 4, 1024, 4.0),
        ("refine", 12, 256, 4.6),
        ("split", 6, 256, 4.5),  # not measured: the model's own
    ],
)
def test_quality_is_that_of_clips_made_so(plan: ScoredPlan, steps: int, side: int, expected: float) -> None:
    assert quality_of(MODEL, plan, steps=steps, width=side, height=side, assumed=2.0) == pytest.approx(expected)


def test_quality_is_measured_or_assumed() -> None:
    def known(card: ModelCard | None) -> float:
        return quality_of(card, "cloud", steps=4, width=256, height=256, assumed=2.0)

    assert known(cloud_card(mos=4.5)) == 4.5
    assert known(cloud_card(mos=None)) == 2.0
    assert known(None) == 2.0


@pytest.mark.parametrize(
    "changes",
    [
        {"draft_best_s": 0.0},
        {"draft_best_s": 11.0},
        {"final_worst_s": math.inf},
        {"draft_weight_iterate": 1.5},
        {"draft_weight_render": math.nan},
        {"unmeasured_final": 6.0},
    ],
)
def test_meaningless_settings_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(SettingsInvalid):
        QoeSettings(**changes)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_meaningless_costs_are_refused(value: float) -> None:
    with pytest.raises(SettingsInvalid):
        Costs(cost_render=value)


def test_cloud_seconds_cost_more_when_iterating() -> None:
    assert Costs().of(10.0, intent="iterate") > Costs().of(10.0, intent="render")


def test_a_cloud_second_costs_others_more_the_longer_they_wait_up_to_what_it_could_do() -> None:
    settings = QoeSettings()

    def cost(wait_s: float, work_s: float = 2.0, quality: float = 4.5) -> float:
        return scarcity(settings, final_quality=quality, wait_s=wait_s, work_s=work_s)

    assert cost(0.0) == cost(-1.0) == 0.0
    assert 0.0 < cost(1.0) < cost(4.0) < cost(settings.final_best_s) == cost(60.0)
    worth = (1.0 - (settings.draft_weight_iterate + settings.draft_weight_render) / 2) * 3.5
    assert cost(60.0) == pytest.approx(worth / (2.0 * math.log(120.0 / 5.0)))
    assert cost(60.0, work_s=1.0) == pytest.approx(2 * cost(60.0))
    assert cost(60.0, quality=1.0) == 0.0
    assert math.isfinite(cost(60.0, work_s=0.0))
