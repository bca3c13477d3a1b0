"""Models that are being loaded: how long a request waits for one, and what is believed of it."""

from collections.abc import Mapping

import pytest

from adaptivegen.nodes import Loading, NodeReport
from scheduler.decide.decide import record
from scheduler.decide.loads import LONGEST_S, MAX_MODELS, MAX_NODES, MOST_TRIES, OVERDUE, Loads
from scheduler.decide.view import View
from tests.unit.scheduler.builders import NOW_NS, of_plan, open_job, outcome, place, query, report, view

S = 10**9
MODEL = "pocket-cloud"


def loading(
    elapsed_s: float,
    expected_s: float = 10.0,
    *,
    seq: int = 1,
    life: int = 5,
    more: Mapping[str, object] | None = None,
) -> NodeReport:
    """A worker that has no model yet."""
    told = (Loading(model=MODEL, elapsed_s=elapsed_s, expected_s=expected_s),)
    values = {"loading": told, "ready": False, "models": (), "line": MODEL, "seq": seq, "started_at_ns": life}
    return report("worker-1", **{**values, **(more or {})})


def serving(seq: int = 9, life: int = 5) -> NodeReport:
    return report("worker-1", seq=seq, started_at_ns=life, line=MODEL)


def heard(*reports: tuple[float, NodeReport]) -> Loads:
    loads = Loads()
    for at_s, one in reports:
        loads.hear(one, now_ns=NOW_NS + round(at_s * S))
    return loads


def left_s(loads: Loads, at_s: float) -> float | None:
    return loads.left_s("worker-1", MODEL, now_ns=NOW_NS + round(at_s * S))


def with_loading(*reports: NodeReport) -> View:
    seen = view(report("edge-1"))
    for one in reports:
        seen.hear(one, now_ns=NOW_NS)
    return seen


def test_what_is_left_is_what_was_expected_less_what_has_passed() -> None:
    loads = heard((0.0, loading(4.0)))
    assert left_s(loads, 0.0) == pytest.approx(6.0)
    assert left_s(loads, 2.0) == pytest.approx(4.0)
    assert loads.left_s("worker-1", "another", now_ns=NOW_NS) is None
    assert loads.left_s("worker-2", MODEL, now_ns=NOW_NS) is None


def test_a_load_that_lasts_longer_needs_a_little_more_and_an_overdue_one_promises_nothing() -> None:
    loads = heard((0.0, loading(0.0)))
    assert left_s(loads, 15.0) == pytest.approx(1.5)
    assert left_s(loads, OVERDUE * 10.0 + 0.1) is None


def test_a_node_that_always_says_that_it_has_just_begun_is_not_believed_for_ever() -> None:
    reports = [(0.5 * beat, loading(0.0, seq=beat)) for beat in range(200)]
    loads = heard(*reports)
    assert left_s(loads, 100.0) is None


def test_a_node_that_begins_anew_in_life_after_life_is_not_believed_after_some() -> None:
    loads = Loads()
    for life in range(1, MOST_TRIES + 2):
        loads.hear(loading(0.0, life=life), now_ns=NOW_NS + life * 5 * S)
        assert (left_s(loads, life * 5.0) is not None) == (life <= MOST_TRIES)
    loads.hear(report("worker-1", started_at_ns=MOST_TRIES + 1, seq=9), now_ns=NOW_NS + 99 * S)  # it serves
    loads.hear(loading(0.0, life=99), now_ns=NOW_NS + 100 * S)
    assert left_s(loads, 100.0) is not None


@pytest.mark.parametrize("expected_s", [LONGEST_S + 1, 1e9])
def test_a_load_that_is_said_to_take_very_long_is_not_waited_for(expected_s: float) -> None:
    assert left_s(heard((0.0, loading(0.0, expected_s))), 1.0) is None


def test_how_long_the_last_load_took_counts_for_more_than_what_is_said_of_the_next() -> None:
    loads = heard((0.0, loading(0.0, 3.0)), (5.0, loading(5.0, 3.0, seq=2)), (6.0, serving()))
    loads.hear(loading(1.0, 3.0, life=7), now_ns=NOW_NS + 100 * S)
    assert left_s(loads, 100.0) == pytest.approx(5.0)


def test_a_load_that_was_given_up_is_none() -> None:
    loads = heard((0.0, loading(0.0)), (1.0, report("worker-1", ready=False, models=(), started_at_ns=5, seq=2)))
    assert left_s(loads, 1.0) is None


def test_a_node_that_is_gone_is_forgotten() -> None:
    seen = with_loading(loading(0.0))
    seen.expire(now_ns=NOW_NS + 3600 * S)
    assert repr(seen.loads) == "Loads([])"


def test_of_ever_new_nodes_and_models_only_so_many_are_remembered() -> None:
    loads = heard((0.0, loading(0.0, 3.0)), (5.0, serving()))
    for number in range(MAX_MODELS):
        other = (Loading(model=f"other-{number}", elapsed_s=0.0, expected_s=1.0),)
        loads.hear(serving(20 + number).model_copy(update={"loading": other}), now_ns=NOW_NS + 10 * S)
        loads.hear(serving(60 + number).model_copy(update={"models": (f"other-{number}",)}), now_ns=NOW_NS + 10 * S)
    loads.hear(loading(0.0, 3.0, seq=99), now_ns=NOW_NS + 20 * S)
    assert left_s(loads, 20.0) == pytest.approx(3.0)  # as it says, since the five seconds it took are forgotten
    for number in range(MAX_NODES):
        loads.hear(loading(0.0).model_copy(update={"node_id": f"w{number}"}), now_ns=NOW_NS + 30 * S)
    assert left_s(loads, 20.0) is None


def test_a_final_waits_for_the_load_and_says_so() -> None:
    seen = with_loading(loading(4.0))
    decision = place(seen)
    refine, cloud = of_plan(decision, "refine"), of_plan(decision, "cloud")
    assert cloud.final_s == pytest.approx(6.0 + 12.17)
    assert refine.final_s == pytest.approx(6.0 + 6.17)  # its draft is there before the model is
    assert refine.load_s == cloud.load_s == pytest.approx(6.0)
    assert "worker-1 of pool default is loading pocket-cloud, for about 6.0 s more" in refine.reason
    assert any("worker-1 is loading it" in reason for reason in decision.reasons)
    assert not any("its time is not known" in reason for reason in decision.reasons)


def test_its_upper_time_allows_for_a_load_that_takes_twice_as_long() -> None:
    loaded, waiting = place(view(report("edge-1"), report("worker-1"))), place(with_loading(loading(4.0)))
    one, other = of_plan(loaded, "cloud"), of_plan(waiting, "cloud")
    assert one.final_s and one.final_upper_s and other.final_s and other.final_upper_s
    assert other.final_upper_s == pytest.approx(other.final_s * one.final_upper_s / one.final_s + 6.0)


def test_the_line_before_it_is_waited_for_too() -> None:
    seen = with_loading(loading(4.0))
    seen.jobs.place(open_job(work_s=12.0))
    cloud = of_plan(place(seen, query(job_id="vid_" + "1" * 26)), "cloud")
    assert cloud.final_s == pytest.approx(6.0 + 12.0 + 12.17)


@pytest.mark.parametrize(
    "changes",
    [
        {"draining": True},
        {"loading": (Loading(model=MODEL, elapsed_s=100.0, expected_s=10.0),)},  # overdue
        {"loading": (Loading(model="another", elapsed_s=0.0, expected_s=10.0),), "line": "another"},
        {"failed_in_row": 50},
    ],
)
def test_of_a_node_that_will_not_serve_soon_nothing_is_promised(changes: dict[str, object]) -> None:
    seen = with_loading(loading(4.0, more=changes))
    decision = place(seen)
    assert of_plan(decision, "refine").final_s is None
    assert any("its time is not known" in reason for reason in decision.reasons)


def test_a_silent_node_promises_nothing() -> None:
    assert of_plan(place(with_loading(loading(0.0, 60.0)), now_ns=NOW_NS + 5 * S), "cloud").final_s is None


def test_a_version_of_the_line_that_is_loaded_is_waited_for_as_well() -> None:
    told = (Loading(model="pocket-next", elapsed_s=0.0, expected_s=3.0),)
    seen = with_loading(loading(0.0, more={"loading": told}))
    assert of_plan(place(seen, query(line=MODEL)), "cloud").load_s == pytest.approx(3.0)
    assert of_plan(place(seen, query()), "cloud").final_s is None


def test_a_worker_that_serves_is_taken_before_one_that_loads() -> None:
    seen = with_loading(loading(4.0), report("worker-2"))
    assert of_plan(place(seen), "cloud").load_s == 0.0


def test_a_deadline_that_the_load_alone_outlasts_cannot_be_met() -> None:
    decision = place(with_loading(loading(0.0, 60.0)), query(deadline_s=20.0))
    assert any("its deadline is 20 s" in reason for reason in decision.reasons)


def test_a_final_that_waited_for_a_load_teaches_nothing_of_finals() -> None:
    seen = with_loading(loading(4.0))
    decision = place(seen)
    record(seen, query(), decision, now_ns=NOW_NS)
    assert seen.ended(outcome(decision, final_s=100.0, draft_s=0.4), now_ns=NOW_NS).keys() == {"draft"}


def test_an_edge_that_loads_its_model_again_drafts_when_it_has() -> None:
    told = (Loading(model="pocket-draft", elapsed_s=1.0, expected_s=3.0),)
    seen = view(report("worker-1"))
    seen.hear(report("edge-1", ready=False, loading=told), now_ns=NOW_NS)
    decision = place(seen)
    refine = of_plan(decision, "refine")
    assert refine.draft_s == pytest.approx(2.0 + 0.37)
    assert refine.draft_upper_s is not None and refine.draft_upper_s > 4.0
    assert any("loads its draft model, for about 2.0 s more" in reason for reason in decision.reasons)
    known = of_plan(place(seen, query(content_known=True)), "hit")
    assert (known.first_look_s, known.first_look_upper_s, known.draft_upper_s) == (0.0, 0.0, 0.0)
    later = place(seen, now_ns=NOW_NS + S)
    assert of_plan(later, "refine").draft_s == pytest.approx(1.0 + 0.37)
    seen.hear(report("edge-1", seq=2, ready=False), now_ns=NOW_NS)
    assert "edge edge-1 is not ready to draft" in of_plan(place(seen), "refine").reason


def test_a_draft_that_waited_for_a_load_teaches_nothing_of_drafts_nor_does_its_final() -> None:
    told = (Loading(model="pocket-draft", elapsed_s=1.0, expected_s=3.0),)
    seen = view(report("worker-1"))
    seen.hear(report("edge-1", ready=False, loading=told), now_ns=NOW_NS)
    decision = place(seen)
    assert decision.plan == "refine"
    record(seen, query(), decision, now_ns=NOW_NS)
    assert seen.ended(outcome(decision, final_s=30.0, draft_s=9.0), now_ns=NOW_NS) == {}
    seen.hear(report("edge-1", seq=2), now_ns=NOW_NS)
    again = place(seen)
    record(seen, query(), again, now_ns=NOW_NS)
    assert seen.ended(outcome(again, final_s=7.0, draft_s=0.4), now_ns=NOW_NS).keys() == {"draft", "final refine"}
