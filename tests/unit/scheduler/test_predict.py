"""Predicted times: known work from profiles, waiting from reports and backlogs."""

import random

import pytest

from scheduler.decide.predict import pool_wait
from scheduler.decide.work import draft_work, work_of
from tests.unit.scheduler.builders import NOW_NS, card, cloud_card, draft_card, open_job, profile, query, report, view


def test_work_of_a_measured_shape() -> None:
    work = work_of(cloud_card(), width=256, height=256, frames=24, steps=12)
    assert work is not None
    assert work.generate_s == pytest.approx((20 + 12 * 500 + 100) / 1e3)
    assert work.encode_s == pytest.approx(0.05)
    assert work.total_s == pytest.approx(6.17)
    assert work.note == ""


def test_a_shape_that_was_not_measured_is_scaled_and_says_so() -> None:
    work = work_of(cloud_card(), width=128, height=128, frames=24, steps=12)
    assert work is not None
    assert work.generate_s == pytest.approx((20 + (12 * 500 + 100) / 4) / 1e3)
    assert "scaled from 256x256 with 24 frames" in work.note


def test_the_measured_shape_is_preferred_then_the_first_listed() -> None:
    model = card(
        "pocket-cloud",
        mos=4.0,
        profiles=(profile(step_ms=100, width=128), profile(step_ms=400), profile(step_ms=900)),
        sizes=("256x256",),
        steps=24,
    )
    work = work_of(model, width=256, height=256, frames=24, steps=1)
    assert work is not None
    assert work.generate_s == pytest.approx((20 + 400 + 100) / 1e3)


def test_without_a_profile_there_is_no_prediction() -> None:
    assert work_of(cloud_card(profiled=False), width=256, height=256, frames=24, steps=12) is None


def test_a_draft_is_made_at_a_size_the_draft_model_offers() -> None:
    work = draft_work(draft_card(), width=256, height=256, frames=48)
    assert work is not None
    assert work.total_s == pytest.approx(0.37)
    assert work.first_look_s == pytest.approx(0.07)
    assert work.note == ""


def wait_s(*reports_of_workers: object, pool: str = "default") -> float | None:
    found = pool_wait(view(*reports_of_workers), query(), now_ns=NOW_NS, rng=random.Random(1))  # type: ignore[arg-type]
    assert found.pool == pool
    return found.wait_s


def test_one_idle_worker_of_two_means_no_wait() -> None:
    assert wait_s(report("worker-1", in_flight=1, remaining_s=20.0), report("worker-2")) == 0.0


def test_busy_workers_are_waited_for() -> None:
    busy = (
        report("worker-1", in_flight=1, remaining_s=20.0),
        report("worker-2", in_flight=1, remaining_s=5.0),
    )
    assert wait_s(*busy) == pytest.approx(5.0)


def test_what_was_dispatched_since_is_waited_for() -> None:
    seen = view(report("worker-1", in_flight=1, remaining_s=5.0))
    seen.jobs.place(open_job(work_s=7.0))
    found = pool_wait(seen, query(), now_ns=NOW_NS, rng=random.Random(1))
    assert found.wait_s == pytest.approx(12.0)


def test_the_pool_that_starts_first_is_chosen() -> None:
    assert wait_s(report("worker-1", in_flight=1, remaining_s=5.0), report("worker-2", pool="big"), pool="big") == 0.0


def test_equal_pools_are_drawn_by_chance() -> None:
    seen = view(report("worker-1"), report("worker-2", pool="big"))
    rng = random.Random(3)
    drawn = {pool_wait(seen, query(), now_ns=NOW_NS, rng=rng).pool for _ in range(50)}
    assert drawn == {"default", "big"}


def test_without_healthy_workers_the_wait_is_unknown_and_the_pool_the_last_known() -> None:
    seen = view(report("worker-1", pool="big", ready=False))
    found = pool_wait(seen, query(), now_ns=NOW_NS, rng=random.Random(1))
    assert (found.pool, found.wait_s, found.workers) == ("big", None, 0)
    found = pool_wait(view(report("edge-1")), query(), now_ns=NOW_NS, rng=random.Random(1))
    assert (found.pool, found.wait_s) == ("default", None)
