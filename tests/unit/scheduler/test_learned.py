"""What heartbeats and outcomes teach a scheduler, and what its predictions make of it."""

import math
import random
from dataclasses import replace

import pytest

from adaptivegen.nodes import FinishedWork, NodeReport
from adaptivegen.placement import Decision, PlacementQuery
from scheduler.decide.decide import decide, record
from scheduler.decide.learned import Learned
from scheduler.decide.view import View
from tests.unit.scheduler.builders import FINAL_S, NOW_NS, cards, done, of_plan, outcome, place, query, report, view


def telling(*works: FinishedWork, node_id: str = "worker-1", life: int = 5) -> NodeReport:
    return report(node_id, finished=works, started_at_ns=life)


def hear(learned: Learned, *reports: NodeReport) -> None:
    for step, heard in enumerate(reports):
        learned.hear(heard, cards(), now_ns=NOW_NS + step * 10**9)


def placed(seen: View, asked: PlacementQuery | None = None) -> Decision:
    """A decision whose work was sent out."""
    decision = place(seen, asked)
    record(seen, asked or query(), decision, now_ns=NOW_NS)
    return decision


def taught(seen: View, factor: float, times: int = 20) -> View:
    """The view after its worker and its edge took so many times as long as their cards say."""
    for number in range(1, times + 1):
        draft = done(number, 0.37 * factor, model="pocket-draft", width=128, height=128, steps=4)
        hear(seen.learned, telling(done(number, FINAL_S * factor)), telling(draft, node_id="edge-1"))
    return seen


def test_a_nodes_work_is_learned_once_however_often_it_is_told() -> None:
    learned = Learned()
    works = (done(1, 2 * FINAL_S), done(2, 2 * FINAL_S))
    hear(learned, telling(works[0]), telling(*works), telling(*works))
    ((node, model, speed),) = learned.speeds.known()
    assert (node, model, speed.seen) == ("worker-1", "pocket-cloud", 2)
    assert learned.pool_factor(["worker-1"], "pocket-cloud") == pytest.approx(2.0, rel=0.1)


def test_a_node_that_begins_anew_counts_anew() -> None:
    learned = Learned()
    hear(learned, telling(done(7, FINAL_S)), telling(done(1, FINAL_S), life=6))
    assert next(learned.speeds.known())[2].seen == 2


def test_work_that_no_card_tells_of_is_passed_over() -> None:
    learned = Learned()
    hear(learned, telling(done(1, 3.0, model="unheard-of"), done(2, FINAL_S)))
    assert [model for _, model, _ in learned.speeds.known()] == ["pocket-cloud"]


def test_a_pool_is_as_fast_as_its_workers_are_together() -> None:
    learned = Learned()
    for number in range(1, 20):
        hear(learned, telling(done(number, FINAL_S)), telling(done(number, 3 * FINAL_S), node_id="worker-2"))
    # In three seconds the one does three seconds of work, the other one: four in six, of two workers.
    assert learned.pool_factor(["worker-1", "worker-2"], "pocket-cloud") == pytest.approx(1.5, rel=0.02)


def test_predictions_are_those_of_the_nodes_that_would_do_it() -> None:
    seen = taught(view(), 2.0)
    before, after = (of_plan(place(part), "refine") for part in (view(), seen))
    assert before.draft_s is not None and after.draft_s is not None and after.first_look_s is not None
    assert before.final_s is not None and after.final_s is not None
    assert after.draft_s == pytest.approx(2 * before.draft_s, rel=0.03)
    assert after.first_look_s == pytest.approx(2 * 0.07, rel=0.03)
    assert after.final_s == pytest.approx(2 * before.final_s, rel=0.03)
    assert after.gpu_s == pytest.approx(2 * before.gpu_s, rel=0.03)


def test_work_that_is_sent_out_counts_as_what_it_will_take() -> None:
    seen = taught(view(), 2.0)
    decision = place(seen)
    record(seen, query(), decision, now_ns=NOW_NS)
    edge = seen.nodes.get("edge-1")
    assert edge is not None
    assert edge.dispatched_s == pytest.approx(2 * 0.37, rel=0.03)
    assert seen.jobs.line("default").work_s == pytest.approx(2 * 6.17, rel=0.03)


def test_an_edge_reports_by_its_card_and_is_read_by_its_speed() -> None:
    busy = (report("edge-1", remaining_s=1.0), report("worker-1"))
    plain, slow = (of_plan(place(part), "refine") for part in (view(*busy), taught(view(*busy), 2.0)))
    assert plain.draft_s == pytest.approx(1.0 + 0.37)
    assert slow.draft_s == pytest.approx(2 * (1.0 + 0.37), rel=0.03)


def test_outcomes_widen_and_narrow_what_predictions_are_told_with() -> None:
    def upper(late: float) -> float:
        seen = view()
        for number in range(200):
            decision = placed(seen)
            chosen = decision.chosen()
            assert chosen is not None and chosen.final_s is not None
            noise = 1.0 + late * math.sin(number)
            seen.ended(outcome(decision, final_s=chosen.final_s * noise, draft_s=chosen.draft_s), now_ns=NOW_NS)
            seen = replace(view(), learned=seen.learned)  # idle again
        told = of_plan(place(seen), "refine")
        assert told.final_s is not None and told.final_upper_s is not None
        return told.final_upper_s / told.final_s

    assert 1.0 <= upper(0.01) < 1.1
    assert 1.2 < upper(0.5) < 2.0


@pytest.mark.parametrize("seconds", [1e308, 5e-324, 1e-3, 0.0, -1.0, math.inf, math.nan])
def test_no_outcome_makes_predictions_that_are_none(seconds: float) -> None:
    seen = view()
    for _ in range(150):
        went = outcome(placed(seen), final_s=seconds, draft_s=seconds, first_look_s=seconds)
        seen.ended(went, now_ns=NOW_NS)
        seen = replace(view(), learned=seen.learned)
    for candidate in place(seen).candidates:
        for middle, upper in (
            (candidate.first_look_s, candidate.first_look_upper_s),
            (candidate.draft_s, candidate.draft_upper_s),
            (candidate.final_s, candidate.final_upper_s),
        ):
            assert (middle is None) == (upper is None)
            assert middle is None or upper is None or middle <= upper <= 21 * middle


def test_every_candidate_tells_an_upper_time_for_what_it_has() -> None:
    decision = place(view())
    for candidate in decision.candidates:
        for middle, upper in (
            (candidate.first_look_s, candidate.first_look_upper_s),
            (candidate.draft_s, candidate.draft_upper_s),
            (candidate.final_s, candidate.final_upper_s),
        ):
            assert (upper is None) == (middle is None)
            assert middle is None or upper is None or upper >= middle
    assert any("mostly within" in reason for reason in decision.reasons)


@pytest.mark.parametrize(
    "changes",
    [
        {"job_id": "another"},
        {"edge_id": "edge-2"},  # that was not placed there
        {"decided_by": "scheduler-2"},
        {"decided_at_ns": NOW_NS + 1},  # placed again
        {"status": "failed"},
        {"plan": "cloud"},
        {"final_s": None},
    ],
)
def test_only_what_was_done_as_it_was_decided_teaches_of_finals(changes: dict[str, object]) -> None:
    seen = view()
    decision = placed(seen)
    assert "final refine" not in seen.ended(outcome(decision, **{"final_s": 6.6, **changes}), now_ns=NOW_NS)


def test_an_outcome_teaches_once_and_a_draft_whatever_became_of_its_final() -> None:
    seen = view()
    decision = placed(seen)
    off = seen.ended(outcome(decision, final_s=6.6, draft_s=0.4), now_ns=NOW_NS)
    assert off == pytest.approx({"draft": math.log(0.4 / 0.37), "final refine": math.log(6.6 / 6.54)}, abs=1e-3)
    assert seen.ended(outcome(decision, final_s=6.6), now_ns=NOW_NS) == {}
    assert dict(seen.learned.spreads)["final refine"].seen == 1
    seen = view()
    assert seen.ended(outcome(placed(seen), status="cancelled", draft_s=0.4), now_ns=NOW_NS).keys() == {"draft"}


def test_first_looks_are_predicted_as_they_are_seen() -> None:
    seen = view()
    before = of_plan(place(seen), "refine")
    for _ in range(100):
        decision = placed(seen)
        chosen = decision.chosen()
        assert chosen is not None and chosen.draft_s is not None and before.first_look_s is not None
        went = outcome(decision, draft_s=chosen.draft_s, first_look_s=1.4 * before.first_look_s)
        seen.ended(went, now_ns=NOW_NS)
        seen = replace(view(), learned=seen.learned)  # idle again
    after = of_plan(place(seen), "refine")
    assert before.first_look_s is not None and after.first_look_s is not None
    assert after.first_look_s == pytest.approx(1.4 * before.first_look_s, rel=0.05)
    assert after.first_look_upper_s is not None and after.first_look_upper_s < 1.2 * after.first_look_s
    assert dict(seen.learned.spreads)["first look"].seen == 100
    assert any("its first look after" in reason and "mostly" in reason for reason in place(seen).reasons)


@pytest.mark.parametrize(
    "changes",
    [
        {"drafted_by": "edge-2", "draft_late": True},  # the look is of the edge that was faster
        {"draft_model": "pocket-draft", "drafted_with": "pocket-draft-2"},
        {"first_look_s": None},
        {"draft_s": None},  # it failed, perhaps at a second edge
    ],
)
def test_a_look_that_another_edge_or_model_made_teaches_nothing(changes: dict[str, object]) -> None:
    seen = view()
    went = outcome(placed(seen), **{"first_look_s": 0.2, "draft_s": 0.4, **changes})
    assert "first look" not in seen.ended(went, now_ns=NOW_NS)


def test_an_upgrade_waits_for_no_draft_and_teaches_nothing_of_one() -> None:
    seen = view(report("edge-1", remaining_s=100.0), report("worker-1"))
    asked = query(draft_known=True, requested_plan="refine")
    decision = placed(seen, asked)
    refine = of_plan(decision, "refine")
    assert refine.draft_s == 0.0
    assert refine.final_s == pytest.approx(6.17)
    edge = seen.nodes.get("edge-1")
    assert edge is not None and edge.dispatched_s == 0.0
    assert seen.ended(outcome(decision, final_s=6.17, draft_s=0.4), now_ns=NOW_NS).keys() == {"final refine"}


def test_of_two_idle_pools_the_faster_is_taken() -> None:
    slow, fast = report("worker-1", pool="slow"), report("worker-2", pool="fast")
    seen = view(report("edge-1"), slow, fast)
    for number in range(1, 20):
        hear(seen.learned, telling(done(number, 5 * FINAL_S)), telling(done(number, FINAL_S), node_id="worker-2"))
    assert {decide(seen, query(), now_ns=NOW_NS, rng=random.Random(seed)).pool for seed in range(20)} == {"fast"}


@pytest.mark.parametrize("changes", [{"guidance": 3.0}, {"width": 128, "height": 128}, {"model": "pocket-draft"}])
def test_what_its_card_was_not_measured_with_teaches_nothing_of_a_node(changes: dict[str, object]) -> None:
    learned = Learned()
    hear(learned, telling(done(1, FINAL_S, **changes)))
    assert not list(learned.speeds.known())


def test_an_older_life_of_a_node_is_not_heard() -> None:
    learned = Learned()
    hear(learned, telling(done(1, FINAL_S), life=6), telling(done(1, FINAL_S)), telling(done(1, FINAL_S), life=6))
    assert next(learned.speeds.known())[2].seen == 1


def test_what_is_learned_is_part_of_a_views_name() -> None:
    seen = view()
    before = seen.digest()
    hear(seen.learned, telling(done(1, FINAL_S)))
    assert seen.digest() != before
    assert place(seen).view_digest == seen.digest()


def test_a_view_forgets_what_it_learned_of_a_node_that_is_gone() -> None:
    seen = view()
    seen.hear(report("worker-1", seq=2, finished=(done(1, FINAL_S),)), now_ns=NOW_NS)
    assert list(seen.learned.speeds.known())
    assert "worker-1" in seen.expire(now_ns=NOW_NS + 3600 * 10**9)
    assert not list(seen.learned.speeds.known())


def test_a_node_that_is_gone_is_forgotten() -> None:
    learned = Learned()
    hear(learned, telling(done(3, FINAL_S)))
    learned.forget("worker-1")
    assert not list(learned.speeds.known())
    hear(learned, telling(done(3, FINAL_S)))
    assert next(learned.speeds.known())[2].seen == 1
