"""When workers become free, by more than their last heartbeat; and how slow an edge is to be expected just now."""

from __future__ import annotations

import pytest

from adaptivegen.nodes import NodeReport
from adaptivegen.placement import Ticket
from scheduler.decide.decide import record
from scheduler.decide.learn import MOST_FACTOR, WARNED_S, Speeds
from scheduler.decide.view import View
from tests.unit.scheduler.builders import FINAL_S, JOB, NOW_NS, open_job, outcome, place, query, report, view

SECOND_NS = 10**9
OTHER = "vid_" + "1" * 26


def free_s(seen: View, *, now_ns: int = NOW_NS) -> list[float]:
    node = seen.nodes.get("worker-1")
    assert node is not None
    return seen.free_at_s(node, now_ns=now_ns)


def told(seen: View, job_id: str = JOB, *, now_ns: int = NOW_NS) -> None:
    """The worker asks and is told this job."""
    ticket = Ticket(worker_id="worker-1", pool="default", model="pocket-cloud", tenant="local", job_id=job_id)
    assert seen.jobs.next(ticket, now_ns=now_ns) is not None


def beat(seen: View, *, now_ns: int, seq: int = 2, **changes: object) -> None:
    heard: NodeReport = report("worker-1", seq=seq, **changes)
    assert seen.hear(heard, now_ns=now_ns) == "accepted"


def test_a_worker_that_says_nothing_of_a_job_is_free() -> None:
    assert free_s(view()) == [0.0]


def test_a_job_that_was_told_counts_whole_until_a_heartbeat_shows_that_its_model_is_at_it() -> None:
    seen = view()
    seen.jobs.place(open_job(work_s=12.0))
    told(seen)
    assert free_s(seen) == [12.0]
    later_ns = NOW_NS + SECOND_NS
    assert free_s(seen, now_ns=later_ns) == [12.0]
    beat(seen, now_ns=later_ns, in_flight=1, at_hand=(JOB,), remaining_s=9.0)
    beat(seen, now_ns=later_ns + 8 * SECOND_NS, seq=3, in_flight=1, at_hand=(JOB,), remaining_s=0.0)  # it uploads
    assert free_s(seen, now_ns=later_ns + 8 * SECOND_NS) == [pytest.approx(4.0)]


def test_a_job_that_waits_for_its_draft_needs_that_and_all_of_its_work() -> None:
    seen = view()
    seen.jobs.place(open_job(work_s=12.0, ready_at_ns=NOW_NS + 5 * SECOND_NS))
    told(seen)
    for later_s, free in ((2, 15.0), (7, 12.0), (60, 12.0)):  # however late its draft is
        later_ns = NOW_NS + later_s * SECOND_NS
        beat(seen, now_ns=later_ns, seq=later_s, in_flight=1, at_hand=(JOB,), remaining_s=0.0)
        assert free_s(seen, now_ns=later_ns) == [pytest.approx(free)]


def test_a_job_that_begins_sooner_than_was_predicted_does_not_hold_its_worker_until_then() -> None:
    seen = view()
    seen.jobs.place(open_job(work_s=12.0, ends_at_ns=NOW_NS + 540 * SECOND_NS))
    told(seen)
    assert free_s(seen) == [12.0]


def test_what_a_worker_says_of_its_own_progress_is_believed() -> None:
    seen = view()
    seen.jobs.place(open_job(work_s=12.0))
    told(seen)
    beat(seen, now_ns=NOW_NS, in_flight=1, at_hand=(JOB,), remaining_s=4.0)
    assert free_s(seen) == [4.0]


def test_a_job_that_has_ended_since_the_heartbeat_is_no_longer_at_hand() -> None:
    seen = view()
    seen.jobs.place(open_job(work_s=12.0))
    told(seen)
    beat(seen, now_ns=NOW_NS, in_flight=1, at_hand=(JOB,), remaining_s=4.0)
    seen.jobs.settle(JOB, gpu_s=12.0, now_ns=NOW_NS)
    assert free_s(seen) == [0.0]


def test_a_job_that_was_told_ahead_begins_when_the_model_is_free() -> None:
    seen = view()
    seen.jobs.place(open_job(work_s=12.0))
    told(seen)
    beat(seen, now_ns=NOW_NS, in_flight=1, at_hand=(JOB,), remaining_s=0.5)
    seen.jobs.place(open_job(OTHER, work_s=8.0))
    told(seen, OTHER)
    assert free_s(seen) == [8.5]
    assert free_s(seen, now_ns=NOW_NS + SECOND_NS) == [8.0]  # by now it has that free
    beat(seen, now_ns=NOW_NS, seq=3, in_flight=2, at_hand=(JOB, OTHER), remaining_s=0.3)
    assert free_s(seen) == [8.3]
    later_ns = NOW_NS + SECOND_NS // 2
    assert free_s(seen, now_ns=later_ns) == [8.0]  # all of it: nobody has said that the model is at it
    beat(seen, now_ns=later_ns, seq=4, in_flight=1, at_hand=(OTHER,), remaining_s=7.8)
    assert free_s(seen, now_ns=later_ns) == [7.8]


@pytest.mark.parametrize("shown_s", [1.0, 4.0], ids=["first seen to be let go", "while the first still shows it"])
def test_a_job_that_another_worker_tries_soon_after_a_failure_is_all_of_its_work_again(shown_s: float) -> None:
    seen = view(report("edge-1"), report("worker-1"), report("worker-2"))
    seen.jobs.place(open_job(work_s=12.0))
    told(seen)
    beat(seen, now_ns=NOW_NS, in_flight=1, at_hand=(JOB,), remaining_s=11.0)
    at_ns = NOW_NS + round(shown_s * SECOND_NS)
    if shown_s < 4.0:
        beat(seen, now_ns=at_ns, seq=3)
    tried_ns = NOW_NS + 4 * SECOND_NS
    other = seen.nodes.get("worker-2")
    assert other is not None
    for beats, later_s in enumerate((0, 1)):  # it fetches the draft
        later_ns = tried_ns + later_s * SECOND_NS
        again = report("worker-2", seq=2 + beats, in_flight=1, at_hand=(JOB,), remaining_s=0.0)
        assert seen.hear(again, now_ns=later_ns) == "accepted"
        if shown_s == 4.0:
            beat(seen, now_ns=later_ns, seq=4 + beats, in_flight=1, at_hand=(JOB,), remaining_s=0.0)
        other = seen.nodes.get("worker-2")
        assert other is not None
        assert seen.free_at_s(other, now_ns=later_ns) == [pytest.approx(12.0)]
    beginning = report("worker-2", seq=4, in_flight=1, at_hand=(JOB,), remaining_s=11.5)
    assert seen.hear(beginning, now_ns=tried_ns + 2 * SECOND_NS) == "accepted"
    seen.jobs.settle(JOB, gpu_s=None, now_ns=tried_ns + 5 * SECOND_NS)
    used_s = seen.jobs.usage.used_s("local", now_s=(tried_ns + 5 * SECOND_NS) / 1e9)
    assert used_s == pytest.approx(5.0)  # since that worker has it


def test_a_job_that_is_cancelled_behind_another_costs_nothing_and_one_that_had_the_model_the_time_since() -> None:
    used = []
    for begun in (False, True):
        seen = view()
        for job_id in (JOB, OTHER):
            seen.jobs.place(open_job(job_id, work_s=12.0))
            told(seen, job_id)
        beat(seen, now_ns=NOW_NS, in_flight=2, at_hand=(JOB, OTHER), remaining_s=1.0)
        beat(seen, now_ns=NOW_NS + 3 * SECOND_NS, seq=3, in_flight=2, at_hand=(JOB, OTHER), remaining_s=0.0)
        if begun:
            later = {"at_hand": (OTHER,), "storing": (JOB,), "remaining_s": 11.9}
            beat(seen, now_ns=NOW_NS + 4 * SECOND_NS, seq=4, in_flight=1, **later)
        ended_ns = NOW_NS + 6 * SECOND_NS
        seen.jobs.settle(OTHER, gpu_s=None, now_ns=ended_ns)
        used.append(seen.jobs.usage.used_s("local", now_s=ended_ns / 1e9))
    assert used == pytest.approx([0.0, 2.0])


def test_places_of_one_worker_take_what_it_was_told_as_they_become_free() -> None:
    seen = view(report("edge-1"), report("worker-1", capacity=2))
    for job_id, work_s in ((JOB, 12.0), (OTHER, 8.0)):
        seen.jobs.place(open_job(job_id, work_s=work_s))
        told(seen, job_id)
    assert sorted(free_s(seen)) == [8.0, 12.0]


def test_a_new_request_waits_for_a_job_that_was_just_told() -> None:
    seen = view()
    seen.jobs.place(open_job(work_s=12.0))
    told(seen)
    chosen = place(seen, query(job_id=OTHER, requested_plan="cloud")).chosen()
    assert chosen is not None and chosen.final_s == pytest.approx(12.0 + FINAL_S)


def test_an_edge_whose_draft_outlasts_what_was_expected_is_at_least_so_slow() -> None:
    seen = view(report("edge-1", in_flight=1, queued=1, remaining_s=0.8, elapsed_s=1.2), report("worker-1"))
    assert seen.draft_factor("edge-1", "pocket-draft", now_ns=NOW_NS) == pytest.approx(3.0)
    assert view().draft_factor("edge-1", "pocket-draft", now_ns=NOW_NS) == 1.0


def test_one_slow_observation_warns_for_a_while_and_moves_predictions_little() -> None:
    speeds = Speeds()
    for second in range(20):
        speeds.observe("edge-1", "edge", "m", observed_s=1.0, predicted_s=1.0, now_s=float(second))
    speeds.observe("edge-1", "edge", "m", observed_s=3.0, predicted_s=1.0, now_s=20.0)
    assert speeds.factor("edge-1", "edge", "m") < 1.2
    assert speeds.warned("edge-1", "m", now_s=21.0) == pytest.approx(3.0)
    assert speeds.warned("edge-1", "m", now_s=20.1 + WARNED_S) == 0.0
    speeds.observe("edge-1", "edge", "m", observed_s=1.0, predicted_s=1.0, now_s=22.0)
    assert speeds.warned("edge-1", "m", now_s=22.0) == 0.0  # it was an accident


def test_an_edge_whose_draft_was_overtaken_is_warned_of() -> None:
    seen = view()
    seen.learned.speeds.observe("edge-1", "edge", "pocket-draft", observed_s=0.37, predicted_s=0.37, now_s=0.0)
    decision = place(seen, query(requested_plan="refine"))
    seen.learned.expect(decision, draft_known=False)
    late = outcome(decision, draft_s=1.48, final_s=14.0, drafted_by="edge-2", draft_late=True)
    seen.ended(late, now_ns=NOW_NS)
    later_ns = NOW_NS + SECOND_NS
    factor = seen.draft_factor("edge-1", "pocket-draft", now_ns=later_ns, asker="edge-1")
    assert factor == pytest.approx(4.0)
    assert seen.draft_factor("edge-1", "pocket-draft", now_ns=later_ns, asker="edge-3") == pytest.approx(1.0)
    assert seen.learned.edge_factor("edge-1", "pocket-draft") == pytest.approx(1.0)


def test_a_second_warning_does_not_take_the_first_back() -> None:
    speeds = Speeds()
    speeds.warn("edge-1", "edge-2", 3.0, now_s=0.0)
    speeds.warn("edge-1", "edge-2", 1.1, now_s=1.0)
    assert speeds.warned("edge-2", "m", now_s=2.0, asker="edge-1") == pytest.approx(3.0)
    assert speeds.warned("edge-2", "m", now_s=2.0, asker="edge-2") == 0.0  # its own users have nothing to do with it
    speeds.warn("edge-1", "edge-2", 1e9, now_s=3.0)
    assert speeds.warned("edge-2", "m", now_s=3.0, asker="edge-1") == pytest.approx(MOST_FACTOR)


@pytest.mark.parametrize(
    "odd", [{"remaining_s": 5e-324, "queued": 1}, {"remaining_s": 1e-300, "elapsed_s": 1e9}, {"elapsed_s": 1e9}]
)
def test_whatever_an_edge_says_of_its_draft_at_hand_it_is_at_most_so_slow(odd: dict[str, float]) -> None:
    known = {"in_flight": 1, "remaining_s": 1.0, "elapsed_s": 1.0}
    seen = view(report("edge-1", **{**known, **odd}), report("worker-1"))
    assert 1.0 <= seen.draft_factor("edge-1", "pocket-draft", now_ns=NOW_NS) <= MOST_FACTOR
    assert place(seen, query()).plan != "refuse"


def test_a_job_with_a_deadline_keeps_its_turn_where_it_could_not_meet_it_after_the_one_that_is_ready() -> None:
    for deadline_s, first in ((90, JOB), (200, OTHER)):
        seen = view()
        urgent = {"ready_at_ns": NOW_NS + SECOND_NS, "deadline_at_ns": NOW_NS + deadline_s * SECOND_NS}
        seen.jobs.place(open_job(JOB, work_s=60.0, **urgent))
        seen.jobs.place(open_job(OTHER, work_s=60.0))
        ticket = Ticket(worker_id="worker-1", pool="default", model="pocket-cloud", tenant="local", job_id=JOB)
        due = seen.jobs.next(ticket, now_ns=NOW_NS)
        assert due is not None and due.job_id == first


def test_of_another_tenant_a_job_that_is_ready_goes_before_one_that_would_only_wait() -> None:
    seen = view()
    seen.jobs.place(open_job(JOB, tenant="local", ready_at_ns=NOW_NS + 9 * SECOND_NS))
    seen.jobs.place(open_job(OTHER, tenant="other"))
    ticket = Ticket(worker_id="worker-1", pool="default", model="pocket-cloud", tenant="local", job_id=JOB)
    due = seen.jobs.next(ticket, now_ns=NOW_NS)
    assert due is not None and due.job_id == OTHER


def test_a_job_whose_draft_is_never_there_gets_its_turn_in_the_end() -> None:
    seen = view()
    far = open_job(JOB, placed_at_ns=NOW_NS, ready_at_ns=2**62)
    seen.jobs.hear_of(far, now_ns=NOW_NS)
    seen.jobs.place(open_job(OTHER, placed_at_ns=NOW_NS + 71 * SECOND_NS))
    ticket = Ticket(worker_id="worker-1", pool="default", model="pocket-cloud", tenant="local", job_id=OTHER)
    due = seen.jobs.next(ticket, now_ns=NOW_NS + 71 * SECOND_NS)
    assert due is not None and due.job_id == JOB


def test_a_request_waits_for_jobs_of_a_version_that_its_line_has_not_loaded_yet() -> None:
    seen = view(report("edge-1"), report("worker-1", models=("pocket-old",), line="pocket-cloud"))
    for number in range(20):
        seen.jobs.place(open_job(f"vid_{number:026d}", work_s=12.0))
    chosen = place(seen, query(job_id=OTHER, requested_plan="cloud", line="pocket-cloud")).chosen()
    assert chosen is not None and chosen.final_s == pytest.approx(240.0 + FINAL_S)


def test_a_job_whose_draft_is_there_goes_before_one_that_would_only_wait() -> None:
    seen = view()
    seen.jobs.place(open_job(JOB, ready_at_ns=NOW_NS + 3 * SECOND_NS, deadline_at_ns=NOW_NS + 60 * SECOND_NS))
    seen.jobs.place(open_job(OTHER, ready_at_ns=NOW_NS + 30 * SECOND_NS))
    seen.jobs.drafted(OTHER)
    ticket = Ticket(worker_id="worker-1", pool="default", model="pocket-cloud", tenant="local", job_id=JOB)
    first = seen.jobs.next(ticket, now_ns=NOW_NS)
    assert first is not None and first.job_id == OTHER
    second = seen.jobs.next(ticket, now_ns=NOW_NS)  # where all would wait, the one whose draft comes first
    assert second is not None and second.job_id == JOB


def test_a_draft_nobody_told_of_keeps_no_worker_from_others_until_long_after_it_should_be_there() -> None:
    ticket = Ticket(worker_id="worker-1", pool="default", model="pocket-cloud", tenant="local", job_id=JOB)
    for late_s, first in ((9.9, OTHER), (10.1, JOB)):
        seen = view()
        seen.jobs.place(open_job(JOB, ready_at_ns=NOW_NS))
        seen.jobs.place(open_job(OTHER))
        due = seen.jobs.next(ticket, now_ns=NOW_NS + round(late_s * SECOND_NS))
        assert due is not None and due.job_id == first


def test_word_of_drafts_of_jobs_that_are_begun_or_unknown_changes_nothing_else() -> None:
    seen = view()
    seen.jobs.place(open_job(JOB, ready_at_ns=NOW_NS + 9 * SECOND_NS))
    ticket = Ticket(worker_id="worker-1", pool="default", model="pocket-cloud", tenant="local", job_id=JOB)
    assert seen.jobs.next(ticket, now_ns=NOW_NS) is not None
    assert seen.jobs.left_s(JOB, now_ns=NOW_NS) == pytest.approx(12.0 + 9.0)
    for job_id in (JOB, OTHER):
        seen.jobs.drafted(job_id)
    assert seen.jobs.left_s(JOB, now_ns=NOW_NS) == pytest.approx(12.0)
    assert OTHER not in seen.jobs and seen.jobs.line("default").waiting == 0


def test_a_placed_job_knows_when_its_draft_should_be_there() -> None:
    seen = view()
    decision = place(seen, query(requested_plan="refine"))
    chosen, job = decision.chosen(), record(seen, query(), decision, now_ns=NOW_NS)
    assert chosen is not None and chosen.draft_s and job is not None
    assert job.ready_at_ns == NOW_NS + round(chosen.draft_s * 1e9)
    from_noise = place(seen, query(job_id=OTHER, requested_plan="cloud"))
    other = record(seen, query(job_id=OTHER), from_noise, now_ns=NOW_NS)
    assert other is not None and other.ready_at_ns == 0
