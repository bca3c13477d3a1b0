"""What was decided lately, and how jobs went against what was predicted of them."""

from __future__ import annotations

import math

import pytest

from adaptivegen.placement import Decision, PlacementQuery
from scheduler.decide.qoe import QoeSettings, qoe
from scheduler.decide.recent import MAX_DECISIONS, MAX_EXPECTED, MAX_OUTCOMES, Compared, Recent
from tests.unit.scheduler.builders import (
    cards,
    cloud_card,
    draft_card,
    of_plan,
    outcome,
    place,
    query,
    scored,
    view,
    with_scores,
)

SETTINGS = QoeSettings()


def job_id(number: int) -> str:
    return f"vid_{number:026d}"


def placed(recent: Recent, asked: PlacementQuery | None = None) -> Decision:
    """A decision that was noted."""
    asked = asked or query()
    decision = place(view(), asked)
    recent.placed(asked, decision, SETTINGS)
    return decision


def ended(recent: Recent, decision: Decision, **changes: object) -> None:
    recent.ended(outcome(decision, **changes), cards(), decider="scheduler-1")


def parts(recent: Recent) -> dict[str, Compared]:
    return {compared.part: compared for compared in recent.compared()}


def test_a_job_that_went_as_predicted_has_the_qoe_that_was_predicted() -> None:
    recent = Recent()
    for plan in ("refine", "cloud"):
        decision = placed(recent, query(requested_plan=plan, job_id=job_id(len(plan))))
        chosen = of_plan(decision, plan)
        ended(recent, decision, draft_s=chosen.draft_s, final_s=chosen.final_s)
    found = parts(recent)
    assert [found[part].outcomes for part in ("draft", "final", "qoe")] == [1, 2, 2]
    for compared in found.values():
        assert compared.observed_p50 == pytest.approx(compared.predicted_p50)
        assert compared.observed_p95 == pytest.approx(compared.predicted_p95)


def test_a_late_job_has_less_qoe_by_the_same_function() -> None:
    recent = Recent()
    decision = placed(recent)
    ended(recent, decision, draft_s=4.0, final_s=60.0)
    found = parts(recent)
    assert (found["draft"].observed_p50, found["final"].observed_p50) == (4.0, 60.0)
    assert found["final"].predicted_p50 == of_plan(decision, "refine").final_s
    expected = qoe(SETTINGS, intent="render", draft_quality=3.0, draft_s=4.0, final_quality=4.5, final_s=60.0)
    assert found["qoe"].observed_p50 == pytest.approx(expected)
    assert found["qoe"].predicted_p50 == of_plan(decision, "refine").qoe


def test_first_looks_are_compared_too() -> None:
    recent = Recent()
    decision = placed(recent)
    ended(recent, decision, first_look_s=0.3, draft_s=0.4, final_s=7.0)
    look = parts(recent)["first look"]
    assert (look.outcomes, look.observed_p50) == (1, 0.3)
    assert look.predicted_p50 == of_plan(decision, "refine").first_look_s


def test_percentiles_are_of_what_was_seen() -> None:
    recent = Recent()
    for number in range(100):
        decision = placed(recent, query(job_id=job_id(number)))
        ended(recent, decision, draft_s=1.0, final_s=float(number + 1))
    final = parts(recent)["final"]
    assert (final.outcomes, final.observed_p50, final.observed_p95) == (100, 50.0, 95.0)


def test_of_a_failed_job_only_what_came_counts() -> None:
    recent = Recent()
    ended(recent, placed(recent), status="failed", draft_s=0.4)
    found = parts(recent)
    assert "final" not in found
    expected = qoe(SETTINGS, intent="render", draft_quality=3.0, draft_s=0.4, final_quality=4.5, final_s=None)
    assert found["qoe"].observed_p50 == pytest.approx(expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "cancelled", "draft_s": 1.0, "final_s": 2.0},
        {"decided_by": "scheduler-2", "draft_s": 1.0, "final_s": 2.0},
        {"decided_at_ns": 1, "draft_s": 1.0, "final_s": 2.0},
        {"edge_id": "edge-9", "draft_s": 1.0, "final_s": 2.0},
        {"job_id": job_id(9), "draft_s": 1.0, "final_s": 2.0},
        {},  # completed, and nobody saw when
        {"draft_s": math.nan, "final_s": -1.0},
    ],
)
def test_what_tells_nothing_of_predictions_is_not_counted(changes: dict[str, object]) -> None:
    recent = Recent()
    ended(recent, placed(recent), **changes)
    assert recent.compared() == ()


def test_an_outcome_counts_once() -> None:
    recent = Recent()
    decision = placed(recent)
    for _ in range(2):
        ended(recent, decision, draft_s=1.0, final_s=2.0)
    assert parts(recent)["final"].outcomes == 1


def test_a_final_that_was_made_by_another_plan_is_compared_in_qoe_alone() -> None:
    recent = Recent()
    ended(recent, placed(recent), plan="cloud", draft_s=0.4, final_s=13.0)
    assert set(parts(recent)) == {"draft", "qoe"}


def test_a_final_whose_steps_were_settled_otherwise_counts_with_those_that_it_has() -> None:
    recent = Recent()
    model = with_scores(cloud_card(), scored("refine", 6, 256, 4.1), scored("refine", 12, 256, 4.5))
    told = outcome(placed(recent), plan="reduced", final_steps=6, draft_s=4.0, final_s=60.0)
    recent.ended(told, cards(draft_card(), model), decider="scheduler-1")
    found = parts(recent)
    assert found["final"].observed_p50 == 60.0
    expected = qoe(SETTINGS, intent="render", draft_quality=3.0, draft_s=4.0, final_quality=4.1, final_s=60.0)
    assert found["qoe"].observed_p50 == pytest.approx(expected)


def test_a_draft_that_was_there_before_is_not_predicted() -> None:
    recent = Recent()
    ended(recent, placed(recent, query(draft_known=True)), final_s=5.0)
    assert recent.compared() == ()


def test_models_without_cards_are_taken_to_be_as_good_as_assumed() -> None:
    recent = Recent()
    decision = placed(recent)
    told = outcome(decision, draft_s=0.1, final_s=1.0)
    recent.ended(told, {}, decider="scheduler-1")
    expected = qoe(SETTINGS, intent="render", draft_quality=2.5, draft_s=0.1, final_quality=3.5, final_s=1.0)
    assert parts(recent)["qoe"].observed_p50 == pytest.approx(expected)


def test_everything_is_bounded_and_the_last_are_kept() -> None:
    recent = Recent()
    asked = query()
    decision = place(view(models=cards(draft_card(), cloud_card())), asked)
    for number in range(MAX_EXPECTED + 10):
        recent.placed(asked, decision.model_copy(update={"job_id": job_id(number)}), SETTINGS)
    assert len(recent.decisions) == MAX_DECISIONS
    assert recent.decisions[-1].decision.job_id == job_id(MAX_EXPECTED + 9)
    for number in range(MAX_EXPECTED + 10):
        late = outcome(decision, job_id=job_id(number), draft_s=1.0, final_s=2.0)
        recent.ended(late, cards(), decider="scheduler-1")
    assert parts(recent)["final"].outcomes == MAX_OUTCOMES
    recent = Recent()
    recent.placed(asked, decision, SETTINGS)
    for number in range(1, MAX_EXPECTED + 1):
        recent.placed(asked, decision.model_copy(update={"job_id": job_id(number)}), SETTINGS)
    ended(recent, decision, draft_s=1.0, final_s=2.0)  # the first has given way
    assert recent.compared() == ()
