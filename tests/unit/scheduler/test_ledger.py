"""Open jobs: who has how many, what they will use, and what is known of them from where."""

from __future__ import annotations

import pytest

from adaptivegen.placement import Ticket
from scheduler.decide.ledger import (
    FIRST_GUESS_S,
    MAX_ENDED,
    MAX_OPEN,
    MAX_POOLS,
    SHOWS_S,
    UNCLAIMED_S,
    UNSEEN_S,
    OpenJobs,
)
from scheduler.decide.quota import Quotas
from scheduler.decide.usage import WINDOW_S
from tests.unit.scheduler.builders import NOW_NS, open_job


def after(seconds: float) -> int:
    return NOW_NS + round(seconds * 1e9)


def ticket(job_id: str, tenant: str = "local", pool: str = "default") -> Ticket:
    return Ticket(worker_id="worker-1", pool=pool, model="pocket-cloud", tenant=tenant, job_id=job_id)


def ledger(*job_ids: str, **changes: object) -> OpenJobs:
    jobs = OpenJobs(Quotas())
    for job_id in job_ids:
        jobs.place(open_job(job_id, **changes))
    return jobs


def turn(jobs: OpenJobs, job_id: str, tenant: str = "local", *, now_ns: int = NOW_NS) -> str | None:
    due = jobs.next(ticket(job_id, tenant), now_ns=now_ns)
    return due.job_id if due is not None else None


def test_a_tenants_jobs_are_counted_and_their_work_is_reserved_until_they_end() -> None:
    jobs = ledger("a", "b")
    jobs.place(open_job("c", tenant="other", gpu_s=3.0))
    assert (jobs.count("local"), jobs.reserved_s("local"), jobs.tenants()) == (2, 24.0, ["local", "other"])
    jobs.settle("a", gpu_s=0.0, now_ns=NOW_NS)
    jobs.settle("never heard of", gpu_s=0.0, now_ns=NOW_NS)
    assert (jobs.count("local"), jobs.reserved_s("local"), len(jobs)) == (1, 12.0, 2)


def test_a_job_that_is_placed_again_is_one_job() -> None:
    jobs = ledger("a")
    jobs.place(open_job("a", work_s=5.0, gpu_s=5.0, pool="big"))
    assert (jobs.count("local"), jobs.reserved_s("local")) == (1, 5.0)
    assert (jobs.line("default").waiting, jobs.line("big").work_s) == (0, 5.0)


def test_the_job_whose_turn_it_is_goes_before_the_one_whose_message_came() -> None:
    jobs = ledger(*(f"heavy-{n}" for n in range(5)), tenant="heavy")
    jobs.place(open_job("light", tenant="light"))
    assert turn(jobs, "heavy-0", "heavy") == "heavy-0"
    assert turn(jobs, "heavy-1", "heavy") == "light"
    assert turn(jobs, "heavy-1", "heavy") == "heavy-1"
    assert jobs.line("default").waiting == 3


def test_a_message_is_proof_that_its_job_waits() -> None:
    jobs = ledger()
    assert turn(jobs, "stranger", "t") == "stranger"
    assert (jobs.count("t"), jobs.reserved_s("t")) == (1, FIRST_GUESS_S)
    moved = ledger("a", pool="other")
    assert turn(moved, "a") == "a"
    assert moved.count("local") == 1
    ended = ledger("a")
    ended.settle("a", gpu_s=1.0, now_ns=NOW_NS)
    assert turn(ended, "a") == "a"  # whoever brings it has looked for its outcome


def test_a_job_that_was_handed_out_a_moment_ago_is_not_handed_out_again() -> None:
    jobs = ledger("a")
    assert turn(jobs, "a") == "a"
    assert turn(jobs, "a") is None
    jobs.place(open_job("b"))
    assert turn(jobs, "a") == "b"
    assert turn(jobs, "a", now_ns=after(UNCLAIMED_S)) == "a"


def test_a_job_that_comes_back_stands_where_it_was_and_is_charged_once() -> None:
    jobs = ledger(*(f"heavy-{n}" for n in range(5)), tenant="heavy")
    jobs.place(open_job("light", tenant="light", placed_at_ns=after(1.0)))
    for round_ in range(5):
        at_ns = after(UNCLAIMED_S * round_)
        assert turn(jobs, "heavy-0", "heavy", now_ns=at_ns) == "heavy-0"
    assert turn(jobs, "heavy-1", "heavy") == "light"
    assert [turn(jobs, "heavy-1", "heavy") for _ in range(4)] == [f"heavy-{n}" for n in range(1, 5)]


def test_a_job_that_its_worker_does_not_show_waits_again() -> None:
    jobs = ledger("a", "b")
    assert turn(jobs, "a") == "a"
    jobs.shown("worker-1", (), now_ns=after(SHOWS_S / 2))
    assert jobs.line("default").waiting == 1
    jobs.shown("worker-1", ("a",), now_ns=after(SHOWS_S / 2))
    jobs.shown("worker-1", (), now_ns=after(SHOWS_S))  # it was at work, so it has ended or was given back
    assert jobs.line("default").waiting == 1
    assert turn(jobs, "b", now_ns=after(2.0)) == "b"
    jobs.shown("worker-2", (), now_ns=after(9.0))  # which was not told of it
    assert jobs.line("default").waiting == 0
    jobs.shown("worker-1", (), now_ns=after(9.0))
    assert jobs.line("default").waiting == 1


def test_a_worker_that_comes_back_takes_no_job_from_another() -> None:
    jobs = ledger("a")
    assert turn(jobs, "a") == "a"  # worker-1, which then is silent
    late = after(UNCLAIMED_S)
    other = ticket("a").model_copy(update={"worker_id": "worker-2"})
    due = jobs.next(other, now_ns=late)
    assert due is not None and due.job_id == "a"
    jobs.shown("worker-1", (), now_ns=late + 1)
    assert jobs.line("default").waiting == 0
    jobs.gone("worker-2")
    assert not jobs._handed


def test_a_job_of_which_more_is_known_later_is_charged_once() -> None:
    jobs = ledger()
    turn(jobs, "a", "a")
    jobs.recover(open_job("a", tenant="a"), queued=False, now_ns=NOW_NS)
    jobs.place(open_job("b", tenant="b"))
    jobs.settle("a", gpu_s=12.0, now_ns=after(12.0))
    for tenant in "ab":
        for number in range(10):
            jobs.place(open_job(f"{tenant}-{number}", tenant=tenant))
    order = [turn(jobs, f"a-{number}", "a") for number in range(10)]
    assert sum(job is not None and job.startswith("b") for job in order) == pytest.approx(6, abs=1)


def test_what_workers_tell_of_no_longer_waits() -> None:
    jobs = ledger("a", "b")
    jobs.shown("worker-9", ("a", "unknown"), now_ns=NOW_NS)
    assert jobs.line("default").waiting == 1
    assert turn(jobs, "b") == "b"


def test_what_a_job_took_is_charged_to_the_hour_it_was_decided_in() -> None:
    jobs = ledger("a", decided_at_ns=after(-600.0))
    turn(jobs, "a")
    jobs.settle("a", gpu_s=9.0, now_ns=after(20.0))
    assert jobs.usage.used_s("local", now_s=after(20.0) / 1e9) == 9.0
    assert jobs.usage.used_s("local", now_s=after(WINDOW_S - 200.0) / 1e9) == 0.0


@pytest.mark.parametrize(("gpu_s", "later_s", "charged_s"), [(1e9, 20.0, 20.0), (None, 5.0, 5.0), (None, 60.0, 12.0)])
def test_no_job_is_charged_more_than_the_time_it_had(gpu_s: float | None, later_s: float, charged_s: float) -> None:
    jobs = ledger("a")
    jobs.shown("worker-1", ("a",), now_ns=NOW_NS)
    jobs.settle("a", gpu_s=gpu_s, now_ns=after(later_s))
    assert jobs.usage.used_s("local", now_s=after(later_s) / 1e9) == pytest.approx(charged_s)


def test_a_job_that_no_worker_was_seen_with_is_charged_nothing() -> None:
    jobs = ledger("a")
    turn(jobs, "a")
    jobs.settle("a", gpu_s=None, now_ns=after(60.0))
    assert jobs.usage.used_s("local", now_s=after(60.0) / 1e9) == 0.0


def test_an_outcome_of_an_unknown_job_is_charged_once() -> None:
    jobs = ledger()
    for _ in range(2):
        jobs.settle_unknown("a", "t", 4.0, NOW_NS, now_ns=after(10.0))
    assert jobs.usage.used_s("t", now_s=after(10.0) / 1e9) == 4.0


def test_the_store_tells_of_jobs_and_who_holds_them() -> None:
    jobs = ledger("mine")
    jobs.recover(open_job("waits"), queued=True, now_ns=NOW_NS)
    jobs.recover(open_job("held"), queued=False, now_ns=NOW_NS)
    jobs.recover(open_job("draft", pool="", model="", gpu_s=0.0), queued=True, now_ns=NOW_NS)
    assert (jobs.count("local"), jobs.line("default").waiting) == (4, 2)


def test_a_job_handed_out_that_nobody_took_waits_again() -> None:
    jobs = ledger("a")
    turn(jobs, "a")
    jobs.recover(open_job("a"), queued=True, now_ns=after(UNCLAIMED_S - 1))
    assert jobs.line("default").waiting == 0
    jobs.recover(open_job("a"), queued=True, now_ns=after(UNCLAIMED_S))
    assert jobs.line("default").waiting == 1


def test_a_job_that_the_store_has_no_longer_is_forgotten_and_a_young_one_is_not() -> None:
    jobs = ledger("gone", "there")
    jobs.place(open_job("young", placed_at_ns=after(UNSEEN_S - 1)))
    assert jobs.forget_missing({"there"}.__contains__, since_ns=after(UNSEEN_S), now_ns=after(UNSEEN_S)) == 1
    assert ["gone" in jobs, "there" in jobs, "young" in jobs] == [False, True, True]


def test_what_another_scheduler_tells_is_news_once() -> None:
    jobs = ledger("a")
    jobs.hear_of(open_job("a", work_s=99.0), now_ns=NOW_NS)
    jobs.hear_of(open_job("b"), now_ns=NOW_NS)
    draft = open_job("c", pool="", model="", gpu_s=0.0, work_s=0.0)
    jobs.hear_of(draft, now_ns=NOW_NS)
    jobs.settle("c", gpu_s=0.0, now_ns=NOW_NS)
    jobs.hear_of(draft, now_ns=NOW_NS)
    assert (jobs.count("local"), jobs.line("default").work_s) == (2, 24.0)
    jobs.hear_of(open_job("c"), now_ns=NOW_NS)  # its final was asked for
    assert (jobs.count("local"), jobs.line("default").work_s) == (3, 36.0)


def test_what_another_scheduler_tells_is_of_now_whatever_its_clock_says() -> None:
    for skew_s in (-300.0, 300.0):
        jobs = ledger()
        told = open_job("a", placed_at_ns=after(skew_s), ends_at_ns=after(skew_s + 7.0))
        jobs.hear_of(told, now_ns=NOW_NS)
        assert jobs.next_end_s("local", now_ns=NOW_NS) == pytest.approx(7.0)
        assert jobs.forget_missing(lambda job_id: False, since_ns=after(1.0), now_ns=after(1.0)) == 0


def test_the_store_is_right_where_a_message_only_let_guess() -> None:
    jobs = ledger()
    turn(jobs, "a", "t")
    stored = open_job("a", tenant="t", tier="priority", work_s=300.0, gpu_s=300.0, placed_at_ns=after(-700.0))
    jobs.recover(stored, queued=False, now_ns=NOW_NS)
    assert (jobs.get("a"), jobs.reserved_s("t"), jobs.line("default").waiting) == (stored, 300.0, 0)
    moved = stored.model_copy(update={"pool": "big"})
    jobs.recover(moved, queued=False, now_ns=NOW_NS)
    assert (jobs.get("a"), jobs.count("t")) == (moved, 1)


def test_a_job_that_ended_while_the_store_was_looked_through_does_not_come_back() -> None:
    jobs = ledger("a")
    jobs.settle("a", gpu_s=1.0, now_ns=after(5.0))
    jobs.recover(open_job("a"), queued=True, now_ns=after(6.0), since_ns=after(4.0))
    assert "a" not in jobs
    jobs.recover(open_job("a"), queued=True, now_ns=after(9.0), since_ns=after(8.0))
    assert "a" in jobs  # its final was asked for


def test_a_job_of_which_no_work_is_told_counts_as_an_average_one() -> None:
    jobs = ledger("a", "b", work_s=30.0, gpu_s=30.0)
    jobs.place(open_job("c", work_s=0.0, gpu_s=0.0))
    assert jobs.line("default").work_s > 60.0 + FIRST_GUESS_S


def test_the_first_end_is_told_and_is_not_known_without_any() -> None:
    jobs = ledger("a", ends_at_ns=after(9.0))
    jobs.place(open_job("b", ends_at_ns=after(4.0)))
    assert jobs.next_end_s("local", now_ns=NOW_NS) == pytest.approx(4.0)
    assert jobs.next_end_s("nobody", now_ns=NOW_NS) is None


def test_what_is_kept_is_bounded() -> None:
    jobs = ledger(*(f"job-{n}" for n in range(MAX_OPEN + 5)))
    assert len(jobs) == MAX_OPEN
    for number in range(MAX_ENDED + 5):
        jobs.settle(f"job-{number}", gpu_s=0.0, now_ns=NOW_NS)
    assert len(jobs._ended) == MAX_ENDED
    pools = OpenJobs(Quotas())
    for number in range(MAX_POOLS + 5):
        pools.place(open_job(f"job-{number}", pool=f"pool-{number}"))
    assert (len(pools), len(pools.pools())) == (MAX_POOLS, MAX_POOLS)
    pools.settle("job-0", gpu_s=0.0, now_ns=NOW_NS)
    pools.place(open_job("new", pool="new"))
    assert "new" in pools  # a pool that has no job any more gives way


def test_a_turn_that_is_asked_for_ahead_is_judged_as_of_when_the_model_is_free() -> None:
    def due(free_in_s: float) -> str:
        jobs = ledger("first", work_s=5.0)
        jobs.place(open_job("dated", work_s=5.0, deadline_at_ns=after(5.2)))
        found = jobs.next(ticket("first").model_copy(update={"free_in_s": free_in_s}), now_ns=NOW_NS)
        assert found is not None
        return found.job_id

    assert (due(0.1), due(0.3)) == ("dated", "first")  # that one could not be met any more
