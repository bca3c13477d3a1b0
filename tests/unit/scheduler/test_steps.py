"""How many steps a final has that must be in time: settled when its turn has come."""

from __future__ import annotations

import math
import random

import pytest

from adaptivegen.clock import ManualClock
from adaptivegen.placement import Decision, Ticket, Turn, plan_of
from scheduler.decide.decide import record
from scheduler.decide.jobs import OpenJob, StepChoice
from scheduler.decide.ledger import OpenJobs
from scheduler.decide.quota import Quotas
from scheduler.decide.steps import HANDING_S, ROOM, settled
from scheduler.placement import Placement
from scheduler.steady import SteadyTime
from tests.unit.scheduler.builders import NOW_NS, of_plan, open_job, outcome, place, query, report, view
from tests.unit.scheduler.test_admission import busy, limited
from tests.unit.scheduler.test_herald import ticket

CHOICE = StepChoice(whole=12, whole_s=4.0, fewer=6, fewer_s=2.0)


def due(in_s: float, **changes: object) -> OpenJob:
    return open_job(deadline_at_ns=NOW_NS + round(in_s * 1e9), steps=CHOICE, **changes)


@pytest.mark.parametrize(
    ("left_s", "steps"),
    [
        (4.0 * ROOM + HANDING_S + 0.01, 12),
        (4.0 * ROOM + HANDING_S - 0.01, 6),
        (2.0 + HANDING_S + 0.01, 6),
        (2.0 + HANDING_S - 0.01, 12),  # late in any case
        (-5.0, 12),
    ],
)
def test_all_steps_are_taken_where_there_is_room_and_where_fewer_would_not_help(left_s: float, steps: int) -> None:
    assert settled(due(left_s), begins_ns=NOW_NS) == steps
    assert settled(due(left_s + 3.0), begins_ns=NOW_NS + 3 * 10**9) == steps  # its model is free only then
    assert settled(due(left_s + 3.0, ready_at_ns=NOW_NS + 3 * 10**9), begins_ns=NOW_NS) == steps  # or its draft there


def test_what_moving_clips_takes_is_not_there_for_steps() -> None:
    far = CHOICE.model_copy(update={"moves_s": 1.5})
    left_s = 4.0 * ROOM + HANDING_S + 0.01
    assert settled(due(left_s).model_copy(update={"steps": far}), begins_ns=NOW_NS) == 6
    assert settled(due(left_s + 1.5).model_copy(update={"steps": far}), begins_ns=NOW_NS) == 12


def test_a_final_without_a_choice_is_as_decided() -> None:
    assert settled(open_job(steps=CHOICE), begins_ns=NOW_NS) == 0  # it has no deadline
    assert settled(open_job(deadline_at_ns=NOW_NS), begins_ns=NOW_NS) == 0


def decision(plan: str, steps: int, t0: float | None = 0.6) -> Decision:
    return place(view()).model_copy(update={"plan": plan, "final_steps": steps, "refine_t0": t0})


def test_a_plan_is_called_by_the_steps_that_are_made() -> None:
    assert plan_of(decision("reduced", 6), 12) == "refine"
    assert plan_of(decision("reduced", 12, None), 24) == "cloud"
    assert plan_of(decision("refine", 12), 6) == "reduced"
    assert [plan_of(decision(plan, 6), 6) for plan in ("refine", "reduced", "cloud")] == ["refine", "reduced", "cloud"]
    assert plan_of(decision("draft", 0, None), 0) == "draft"


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({"deadline_s": 60.0, "allow_reduced": True}, True),
        ({"deadline_s": 60.0}, False),
        ({"allow_reduced": True}, False),
        ({"deadline_s": 60.0, "allow_reduced": True, "requested_plan": "draft"}, False),
        ({"deadline_s": 60.0, "allow_reduced": True, "final_steps": 1}, False),  # the fewest there are
    ],
)
def test_steps_may_be_settled_where_the_request_has_a_deadline_and_allows_fewer(
    changes: dict[str, object], chosen: bool
) -> None:
    seen = view()
    asked = query(**{"intent": "iterate", "requested_plan": "refine", **changes})
    job = record(seen, asked, place(seen, asked), now_ns=NOW_NS)
    assert job is not None
    assert (job.steps is not None) is chosen


@pytest.mark.parametrize("why", ["quota", "line"])
def test_steps_that_were_taken_for_another_reason_than_the_deadline_are_not_given_back(why: str) -> None:
    seen = limited(gpu_seconds_per_hour=5.0) if why == "quota" else busy(view(), 408.0)
    asked = query(deadline_s=3000.0, allow_reduced=True)
    made = place(seen, asked)
    job = record(seen, asked, made, now_ns=NOW_NS)
    assert (made.plan, made.settles) == ("reduced", False)
    assert job is not None and job.steps is None


def dated(job_id: str, in_s: float) -> OpenJob:
    at_ns = NOW_NS + round(in_s * 1e9)
    return open_job(job_id, work_s=4.0, gpu_s=3.5, deadline_at_ns=at_ns, steps=CHOICE)


def asks_for(job_id: str) -> Ticket:
    return ticket().model_copy(update={"job_id": job_id})


def test_a_job_that_only_fewer_steps_would_save_still_goes_before_those_without_a_deadline() -> None:
    for in_s, due_id in ((3.0, "dated"), (1.5, "older")):  # at 1.5 s nothing saves it
        jobs = OpenJobs(Quotas())
        jobs.place(open_job("older", placed_at_ns=NOW_NS - 10**9))
        jobs.place(dated("dated", in_s))
        told = jobs.next(asks_for("older"), now_ns=NOW_NS)
        assert told is not None
        assert (told.job_id, told.settled_steps) == (due_id, 6 if due_id == "dated" else 0)


@pytest.mark.parametrize(("in_s", "steps", "gpu_s"), [(60.0, 12, 3.5), (3.0, 6, 1.75)])
def test_what_a_job_will_take_with_its_steps_is_reserved_and_charged_from_its_turn_on(
    in_s: float, steps: int, gpu_s: float
) -> None:
    jobs = OpenJobs(Quotas())
    jobs.place(dated("a", in_s))
    jobs.place(dated("b", 600.0))
    told = jobs.next(asks_for("a"), now_ns=NOW_NS)
    assert told is not None
    assert (told.job_id, told.settled_steps, told.gpu_s) == ("a", steps, gpu_s)
    assert jobs.reserved_s("local") == pytest.approx(gpu_s + 3.5)
    jobs.settle("a", gpu_s=gpu_s, now_ns=NOW_NS + 10**10)
    jobs.settle("b", gpu_s=0.0, now_ns=NOW_NS + 10**10)
    assert jobs.reserved_s("local") == pytest.approx(0.0)


@pytest.mark.parametrize("made", ["refine", "reduced", "cloud"])
def test_a_final_that_lost_steps_because_it_came_late_is_learned_from_too(made: str) -> None:
    """Else only those would be that came as expected."""
    seen, asked = view(), query(deadline_s=60.0, allow_reduced=True)
    decision = place(seen, asked)
    job, chosen = record(seen, asked, decision, now_ns=NOW_NS), decision.chosen()
    assert decision.plan == "refine" and job is not None and job.steps is not None
    assert chosen is not None and chosen.final_s is not None
    less_s = job.steps.whole_s - job.steps.fewer_s if made == "reduced" else 0.0
    told = outcome(decision, plan=made, final_s=2 * chosen.final_s - less_s)
    offs = seen.learned.outcome(told, decider=seen.decider)
    assert offs.get("final refine by a deadline") == (None if made == "cloud" else pytest.approx(math.log(2.0)))


async def test_a_reduced_final_gets_all_its_steps_where_its_turn_comes_soon_enough() -> None:
    """Told to the worker that asks: with the deadline of the placing, by the scheduler's clock alone."""
    whole = of_plan(place(view(), query(allow_reduced=True)), "refine")
    assert whole.final_s
    deadline_s = whole.final_s * (ROOM - 0.01)
    for waits_s, steps in ((0.0, 12), (deadline_s - whole.gpu_s, 6), (deadline_s, 12)):
        seen, clock = view(), ManualClock()
        placement = Placement(seen, time=SteadyTime(clock), rng=random.Random(1))
        made = await placement.place(query(deadline_s=deadline_s, allow_reduced=True))
        assert (made.plan, made.final_steps) == ("reduced", 6)
        seen.jobs.drafted(made.job_id)
        await clock.advance(waits_s)
        seen.hear(report("worker-1", seq=2), now_ns=clock.now_ns())
        turn = await placement.next_job(ticket())
        assert turn == Turn(tenant="local", job_id=made.job_id, final_steps=steps)
