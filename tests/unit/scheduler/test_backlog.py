"""The backlog of a pool: what waits, and how long a new job would wait."""

import pytest

from scheduler.decide.backlog import MAX_TRACKED, Backlog
from tests.unit.scheduler.builders import NOW_NS

LATER_NS = NOW_NS + 10 * 10**9


def test_an_idle_slot_means_no_wait() -> None:
    assert Backlog().wait_s([0.0, 30.0]) == 0.0


def test_without_slots_the_wait_is_unknown() -> None:
    assert Backlog().wait_s([]) is None


def test_waiting_jobs_fill_the_slots_in_order() -> None:
    backlog = Backlog()
    for number, work_s in enumerate((10.0, 4.0, 3.0)):
        backlog.dispatch(f"job-{number}", work_s, now_ns=NOW_NS)
    # slot A: 10 s; slot B: 2 + 4 + 3 s
    assert backlog.wait_s([0.0, 2.0]) == pytest.approx(9.0)


def test_a_job_placed_again_counts_once() -> None:
    backlog = Backlog()
    backlog.dispatch("job", 5.0, now_ns=NOW_NS)
    backlog.dispatch("job", 7.0, now_ns=NOW_NS)
    assert backlog.work_s == 7.0


def test_the_broker_count_drops_the_oldest_settled_jobs() -> None:
    backlog = Backlog()
    for number in range(4):
        backlog.dispatch(f"job-{number}", float(number + 1), now_ns=NOW_NS)
    backlog.observe(1, now_ns=LATER_NS)
    assert backlog.work_s == pytest.approx(4.0)  # the last one placed is the one that waits
    backlog.observe(0, now_ns=LATER_NS)
    assert backlog.waiting == 0


def test_a_job_just_placed_survives_an_empty_queue() -> None:
    backlog = Backlog()
    backlog.dispatch("old", 5.0, now_ns=NOW_NS)
    backlog.dispatch("young", 3.0, now_ns=LATER_NS)
    backlog.observe(0, now_ns=LATER_NS)
    assert backlog.work_s == pytest.approx(3.0)


def test_jobs_placed_elsewhere_count_as_average() -> None:
    backlog = Backlog()
    backlog.observe(4, now_ns=NOW_NS)
    assert backlog.waiting == 4
    assert backlog.wait_s([0.0, 0.0]) == pytest.approx(backlog.work_s / 2)
    assert backlog.work_s > 0


def test_an_outcome_takes_the_job_away() -> None:
    backlog = Backlog()
    backlog.dispatch("job", 5.0, now_ns=NOW_NS)
    backlog.settle("job")
    backlog.settle("never heard of")
    assert backlog.wait_s([1.0]) == 1.0


def test_memory_is_bounded() -> None:
    backlog = Backlog()
    for number in range(MAX_TRACKED + 100):
        backlog.dispatch(f"job-{number}", 1.0, now_ns=NOW_NS)
    assert backlog.waiting == MAX_TRACKED


def test_a_nonsense_count_is_no_backlog() -> None:
    backlog = Backlog()
    backlog.observe(-5, now_ns=NOW_NS)
    assert backlog.waiting == 0
