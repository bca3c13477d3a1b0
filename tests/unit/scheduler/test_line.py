"""Whose turn it is in a pool, and how long a new job would wait."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptivegen.placement import TIERS, Tier
from scheduler.decide.flow import AGED_S
from scheduler.decide.jobs import Newcomer, OpenJob
from scheduler.decide.line import HEAD_START_S, MAX_IDLE, MAX_SIMULATED, Line, begin_s
from tests.unit.scheduler.builders import NOW_NS, open_job

MODELS = ("pocket-cloud",)


def line_of(*jobs: OpenJob, weights: dict[str, float] | None = None) -> Line:
    line = Line()
    for job in jobs:
        line.add(job, weight=(weights or {}).get(job.tenant, 1.0))
    return line


def many(tenant: str, count: int, work_s: float = 1.0, **changes: object) -> list[OpenJob]:
    return [open_job(f"{tenant}-{n}", tenant=tenant, work_s=work_s, **changes) for n in range(count)]


def served(line: Line, count: int | None = None) -> list[str]:
    """The jobs as workers would take them, one after another."""
    order: list[str] = []
    while (count is None or len(order) < count) and (job := line.next(MODELS, now_ns=NOW_NS)) is not None:
        line.start(job)
        order.append(job.job_id)
    return order


def wait(line: Line, slots: list[float], tenant: str, **asked: Any) -> float | None:
    """How long a job that comes now would wait."""
    return line.wait_s(slots, Newcomer(tenant, **asked), frozenset(MODELS), now_ns=NOW_NS)


def test_one_tenants_jobs_go_in_the_order_they_came() -> None:
    assert served(line_of(*many("a", 4))) == ["a-0", "a-1", "a-2", "a-3"]


def test_a_tenant_with_one_job_is_not_behind_another_ones_hundred() -> None:
    line = line_of(*many("heavy", 100), *many("light", 1))
    assert "light-0" in served(line, 2)


def test_two_tenants_take_turns_by_work_and_not_by_jobs() -> None:
    line = line_of(*many("short", 40, work_s=1.0), *many("long", 40, work_s=4.0))
    work_s = {"short": 0.0, "long": 0.0}
    for name in served(line, 25):
        tenant = name.partition("-")[0]
        work_s[tenant] += 1.0 if tenant == "short" else 4.0
    assert abs(work_s["short"] - work_s["long"]) <= 4.0


def test_a_weight_of_three_is_three_times_the_work() -> None:
    line = line_of(*many("a", 80), *many("b", 80), weights={"b": 3.0})
    order = [name.partition("-")[0] for name in served(line, 40)]
    assert order.count("b") == pytest.approx(30, abs=2)


def test_who_was_idle_has_saved_nothing_up() -> None:
    line = line_of(*many("a", 60))
    served(line, 30)
    for job in many("b", 60):
        line.add(job)
    order = [name.partition("-")[0] for name in served(line, 20)]
    assert order.count("b") == pytest.approx(10, abs=1)


def test_work_that_took_longer_than_predicted_is_charged() -> None:
    for took_s, others in ((1.0, 10), (11.0, 15)):
        line = line_of(*many("a", 40), *many("b", 40))
        first = line.next(MODELS, now_ns=NOW_NS)
        assert first is not None and first.tenant == "a"
        line.start(first)
        line.end(first, took_s=took_s)
        order = [name.partition("-")[0] for name in served(line, 20)]
        assert order.count("b") == pytest.approx(others, abs=1)


def test_a_job_that_is_put_back_is_as_if_it_had_not_been_started() -> None:
    line = line_of(*many("a", 3), *many("b", 1))
    first = line.next(MODELS, now_ns=NOW_NS)
    assert first is not None
    for _ in range(5):
        line.start(first)
        line.put_back(first)
    assert served(line) == ["a-0", "b-0", "a-1", "a-2"]


def test_a_job_that_is_dropped_costs_its_tenant_nothing() -> None:
    line = line_of(*many("a", 20, work_s=10.0), *many("b", 1))
    for job in many("a", 20, work_s=10.0)[1:]:
        line.drop(job)
    line.add(open_job("a-new", tenant="a", work_s=1.0))
    assert line.waiting == 3
    assert served(line) == ["a-0", "b-0", "a-new"]


def test_a_better_tier_goes_first() -> None:
    line = line_of(*many("a", 3, tier="flex"), *many("b", 3), *many("c", 3, tier="priority"))
    assert [name.partition("-")[0] for name in served(line)] == ["c"] * 3 + ["b"] * 3 + ["a"] * 3


def test_no_tier_waits_for_ever() -> None:
    older = round((HEAD_START_S["default"] - HEAD_START_S["flex"] + 1.0) * 1e9)
    line = line_of(*many("a", 1, tier="flex", placed_at_ns=NOW_NS - older), *many("b", 5))
    assert served(line, 1) == ["a-0"]


def test_a_tier_goes_by_the_job_that_is_due_and_not_by_its_oldest() -> None:
    old = round((HEAD_START_S["default"] - HEAD_START_S["flex"] + 100.0) * 1e9)
    line = line_of(*many("h", 5, tier="flex", placed_at_ns=NOW_NS - old), *many("d", 3))
    assert served(line, 1) == ["h-0"]
    for job in many("new", 3, tier="flex"):
        line.add(job)
    order = served(line)
    assert max(order.index(f"d-{n}") for n in range(3)) < min(order.index(f"new-{n}") for n in range(3))


def test_jobs_whose_deadline_can_be_met_go_first_within_their_tenant_alone() -> None:
    soon, later, missed = (NOW_NS + round(s * 1e9) for s in (30.0, 60.0, 5.0))
    line = line_of(
        *many("a", 2, work_s=10.0),
        open_job("missed", tenant="a", work_s=10.0, deadline_at_ns=missed),
        open_job("later", tenant="a", work_s=10.0, deadline_at_ns=later),
        open_job("soon", tenant="a", work_s=10.0, deadline_at_ns=soon),
        *many("b", 1, work_s=10.0),
    )
    assert served(line) == ["soon", "b-0", "later", "a-0", "a-1", "missed"]


def test_jobs_without_a_deadline_that_have_waited_for_long_go_in_turns_with_those_that_have_one() -> None:
    waited = NOW_NS - round((AGED_S + 1.0) * 1e9)
    urgent = [open_job(f"u-{n}", tenant="a", deadline_at_ns=NOW_NS + 10**12) for n in range(3)]
    line = line_of(*many("a", 3, placed_at_ns=waited), *urgent)
    assert [name[0] for name in served(line)] == ["u", "a", "u", "a", "u", "a"]


def test_a_missed_deadline_takes_no_turn_from_one_that_can_be_met() -> None:
    waited = NOW_NS - round((AGED_S + 1.0) * 1e9)
    missed = [open_job(f"m-{n}", tenant="a", placed_at_ns=waited, deadline_at_ns=waited + 1) for n in range(3)]
    urgent = [open_job(f"u-{n}", tenant="a", deadline_at_ns=NOW_NS + 10**12) for n in range(3)]
    assert [name[0] for name in served(line_of(*missed, *urgent))] == ["u", "m", "u", "m", "u", "m"]


def test_finals_that_somebody_waits_for_go_before_those_of_iterations_within_their_tenant_alone() -> None:
    render = open_job("render", tenant="a", good_until_ns=NOW_NS)
    line = line_of(*many("a", 2, awaited=False), *many("b", 1, awaited=False), render)
    assert served(line) == ["render", "b-0", "a-0", "a-1"]


@pytest.mark.parametrize(
    ("work_s", "order"),
    [(3.0, ["i", "r"]), (4.0, ["r", "i"]), (6.0, ["r", "i"])],  # it can well wait; it can not; it is late anyway
)
def test_a_final_that_somebody_waits_for_goes_first_where_it_would_be_late_otherwise(
    work_s: float, order: list[str]
) -> None:
    iterating = open_job("i", tenant="a", awaited=False, work_s=1.0)
    assert (
        served(line_of(iterating, open_job("r", tenant="a", work_s=work_s, good_until_ns=NOW_NS + 5 * 10**9))) == order
    )


def test_finals_that_somebody_waits_for_are_begun_in_time_for_all_that_came_together() -> None:
    iterating = open_job("i", tenant="a", awaited=False, work_s=1.0)
    renders = [open_job(f"r-{n}", tenant="a", work_s=1.0, good_until_ns=NOW_NS + 5 * 10**9) for n in range(4)]
    assert served(line_of(iterating, *renders[:3]), 1) == ["i"]  # the third is done after three seconds
    assert served(line_of(iterating, *renders), 1) == ["r-0"]


def test_finals_nobody_waits_for_go_in_turns_when_they_have_waited_for_long() -> None:
    waited = NOW_NS - round((AGED_S + 1.0) * 1e9)
    iterating = [open_job(f"i-{n}", tenant="a", placed_at_ns=waited, awaited=False) for n in range(3)]
    renders = [open_job(f"r-{n}", tenant="a", good_until_ns=NOW_NS) for n in range(3)]
    assert [name[0] for name in served(line_of(*iterating, *renders))] == ["r", "i", "r", "i", "r", "i"]
    urgent = [open_job(f"u-{n}", tenant="a", deadline_at_ns=NOW_NS + 10**12) for n in range(2)]
    lately = [job.model_copy(update={"placed_at_ns": NOW_NS - 40 * 10**9}) for job in iterating]
    assert [name[0] for name in served(line_of(*lately, *urgent, *renders[:1]))] == ["u", "u", "i", "r", "i", "i"]


def test_a_job_that_could_not_have_gone_first_is_not_jumped() -> None:
    waited = NOW_NS - round((AGED_S + 1.0) * 1e9)
    far = open_job(
        "draft-in-the-making", tenant="a", placed_at_ns=waited - 1, ready_at_ns=NOW_NS + 10**12, awaited=False
    )
    iterating = [open_job(f"i-{n}", tenant="a", placed_at_ns=NOW_NS - 40 * 10**9, awaited=False) for n in range(3)]
    renders = [open_job(f"r-{n}", tenant="a", good_until_ns=NOW_NS) for n in range(3)]
    late = far.model_copy(update={"placed_at_ns": NOW_NS - 50 * 10**9})
    assert [name[0] for name in served(line_of(late, *iterating, *renders), 6)] == ["r", "i", "r", "i", "r", "i"]


def test_waits_are_told_by_the_order_in_which_finals_go() -> None:
    line = line_of(*many("a", 3, work_s=10.0, awaited=False), open_job("r", tenant="a", work_s=10.0))
    assert wait(line, [0.0], "a") == pytest.approx(10.0)
    assert wait(line, [0.0], "a", good_until_ns=NOW_NS + 35 * 10**9) == pytest.approx(30.0)  # so long it can well wait
    assert wait(line, [0.0], "a", awaited=False) == pytest.approx(40.0)


def test_what_is_paid_back_cannot_be_saved_up() -> None:
    line = line_of(open_job("long", tenant="a", work_s=1000.0))
    long = line.next(MODELS, now_ns=NOW_NS)
    assert long is not None
    line.start(long)
    for job in many("b", 50, work_s=50.0):
        line.add(job)
    served(line, 50)
    for job in [*many("a", 20), *(job.model_copy(update={"job_id": f"x-{job.job_id}"}) for job in many("b", 20))]:
        line.add(job)
    line.end(long, took_s=1.0)
    assert [name[0] for name in served(line, 20)].count("a") == pytest.approx(10, abs=1)


def test_whoever_comes_after_a_line_has_emptied_is_even_however_it_emptied() -> None:
    line = line_of(*many("a", 11, work_s=100.0))
    served(line, 10)
    line.drop(many("a", 11, work_s=100.0)[10])
    for job in (*many("b", 10), *(job.model_copy(update={"job_id": f"x-{job.job_id}"}) for job in many("a", 10))):
        line.add(job)
    assert [name[0] for name in served(line, 10)].count("b") == pytest.approx(5, abs=1)


def test_a_deadline_is_told_how_long_the_jobs_before_it_take() -> None:
    deadline = NOW_NS + 10**12
    line = line_of(*many("a", 5, work_s=10.0), open_job("u", tenant="a", work_s=10.0, deadline_at_ns=deadline))
    assert wait(line, [0.0], "a", deadline_at_ns=deadline + 1) == pytest.approx(10.0)
    assert wait(line, [0.0], "a", deadline_at_ns=deadline - 1) == pytest.approx(0.0)
    assert wait(line, [0.0], "a") == pytest.approx(60.0)


def test_what_others_go_on_sending_is_waited_for_as_far_as_it_would_go_first() -> None:
    line = Line()
    for number in range(60):  # half of what one worker can do, for ten minutes, all of it done
        job = open_job(f"light-{number}", tenant="light", work_s=5.0, placed_at_ns=NOW_NS - (60 - number) * 10**10)
        line.add(job)
        line.start(job)
    for job in many("heavy", 40, work_s=10.0):
        line.add(job)
    heavy_s, light_s = wait(line, [0.0], "heavy"), wait(line, [0.0], "light")
    assert heavy_s == pytest.approx(800.0, rel=0.15)
    assert light_s is not None and light_s <= 20.0


def test_a_worse_tier_that_has_waited_for_long_is_waited_for() -> None:
    ahead_s = HEAD_START_S["priority"] - HEAD_START_S["default"]
    aged = many("a", 80, work_s=5.0, placed_at_ns=NOW_NS - round((ahead_s + 10.0) * 1e9))
    assert wait(line_of(*aged), [0.0], "p", tier="priority") == pytest.approx(400.0)
    assert wait(line_of(*many("a", 80, work_s=5.0)), [0.0], "p", tier="priority") == 0.0


def test_a_worker_is_given_only_what_it_can_do() -> None:
    line = line_of(open_job("other", model="wan"), *many("a", 1))
    assert served(line) == ["a-0"]
    assert (line.waiting, line.next(["wan"], now_ns=NOW_NS)) == (1, open_job("other", model="wan"))


def test_adding_starting_and_dropping_twice_is_once() -> None:
    job = open_job("a")
    line = line_of(job, job)
    assert (line.waiting, line.work_s) == (1, 12.0)
    line.start(job)
    line.start(job)
    line.drop(job)
    assert (line.waiting, line.work_s, line.next(MODELS, now_ns=NOW_NS)) == (0, 0.0, None)


def test_a_new_job_waits_for_what_its_tenants_share_puts_before_it() -> None:
    line = line_of(*many("heavy", 10, work_s=5.0))
    assert wait(line, [0.0], "heavy") == pytest.approx(50.0)
    assert wait(line, [0.0], "light") == pytest.approx(5.0)  # the one whose turn it is already
    assert wait(line, [0.0, 0.0], "heavy") == pytest.approx(25.0)
    assert wait(line, [], "light") is None


def test_better_tiers_are_waited_for_and_worse_ones_are_not() -> None:
    line = line_of(*many("a", 2, tier="priority"), *many("b", 3), *many("c", 4, tier="flex"))
    assert [wait(line, [0.0], "d", tier=tier) for tier in TIERS] == pytest.approx([1.0, 3.0, 6.0], rel=0.1)


def test_a_long_line_is_predicted_as_a_short_one() -> None:
    works_s = [2.0] * (3 * MAX_SIMULATED)
    assert begin_s([0.0, 0.0], works_s) == pytest.approx(3.0 * MAX_SIMULATED)
    assert begin_s([4.0], []) == 4.0
    uneven = begin_s([0.0, 1000.0], [1.0] * (2 * MAX_SIMULATED))
    assert uneven is not None and uneven >= 2 * MAX_SIMULATED


def test_tenants_that_have_gone_are_forgotten() -> None:
    line = Line()
    for number in range(3 * MAX_IDLE):
        line.add(open_job(f"job-{number}", tenant=f"t{number}"))
        served(line)
    assert len(line._lanes["default"]._flows) <= 2 * MAX_IDLE + 1


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(TIERS), st.floats(0.01, 100.0), st.sampled_from("ants")),
        max_size=60,
    )
)
def test_whatever_comes_and_goes_the_line_holds_what_waits(steps: list[tuple[str, Tier, float, str]]) -> None:
    line, waiting = Line(), dict[str, OpenJob]()
    for number, (tenant, tier, work_s, step) in enumerate(steps):
        if step == "a" or not waiting:
            job = open_job(f"job-{number}", tenant=tenant, tier=tier, work_s=work_s)
            line.add(job)
            waiting[job.job_id] = job
        elif step == "n" and (due := line.next(MODELS, now_ns=NOW_NS)) is not None:
            line.start(due)
            line.end(due, took_s=work_s)
            del waiting[due.job_id]
        else:
            gone = waiting.pop(next(iter(waiting)))
            if step == "t":
                line.drop(gone)
            else:
                line.start(gone)
        assert line.waiting == len(waiting)
        assert line.work_s == pytest.approx(sum(job.work_s for job in waiting.values()))
    assert sorted(served(line)) == sorted(waiting)


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_backlogged_tenants_never_differ_by_more_than_two_of_their_longest_jobs(seed: int, tenants: int) -> None:
    rng = random.Random(seed)
    jobs = [
        open_job(f"{t}-{n}", tenant=f"t{t}", work_s=rng.uniform(0.5, 8.0)) for n in range(30) for t in range(tenants)
    ]
    line, done, left = line_of(*jobs), dict.fromkeys((f"t{t}" for t in range(tenants)), 0.0), dict[str, int]()
    for job in jobs:
        left[job.tenant] = left.get(job.tenant, 0) + 1
    while min(left.values()) > 1:  # all of them have something waiting
        due = line.next(MODELS, now_ns=NOW_NS)
        assert due is not None
        line.start(due)
        done[due.tenant] += due.work_s
        left[due.tenant] -= 1
        assert max(done.values()) - min(done.values()) <= 2 * 8.0
