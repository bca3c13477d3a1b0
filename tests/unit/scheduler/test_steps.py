"""How many steps a final has that must be in time: settled when its turn has come."""

from __future__ import annotations

import math
import random

import pytest

from adaptivegen.clock import ManualClock
from adaptivegen.models.card import ModelCard
from adaptivegen.placement import AS_DECIDED, Decision, Ticket, ToldSteps, Turn, plan_of
from scheduler.decide.decide import record
from scheduler.decide.jobs import OpenJob, StepChoice
from scheduler.decide.ledger import OpenJobs
from scheduler.decide.qoe import NEVER_S, QoeSettings, scarce_from, scarcity
from scheduler.decide.quota import Quotas
from scheduler.decide.steps import HANDING_S, ROOM, settled
from scheduler.placement import Placement
from scheduler.steady import SteadyTime
from tests.unit.scheduler.builders import (
    NOW_NS,
    cards,
    cloud_card,
    draft_card,
    of_plan,
    open_job,
    outcome,
    place,
    query,
    report,
    scored,
    view,
    with_scores,
)
from tests.unit.scheduler.test_admission import busy, limited
from tests.unit.scheduler.test_herald import ticket

CHOICE = StepChoice(whole=12, whole_s=4.0, fewer=6, fewer_s=2.0)


def due(in_s: float, **changes: object) -> OpenJob:
    return open_job(deadline_at_ns=NOW_NS + round(in_s * 1e9), steps=CHOICE, **changes)


def steps_of(job: OpenJob, begins_ns: int = NOW_NS) -> int:
    """With nobody else in line."""
    told = settled(job, begins_ns=begins_ns, wait_s=0.0)
    assert not told.others_wait
    return told.steps


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
    assert steps_of(due(left_s)) == steps
    assert steps_of(due(left_s + 3.0), begins_ns=NOW_NS + 3 * 10**9) == steps  # its model is free only then
    assert steps_of(due(left_s + 3.0, ready_at_ns=NOW_NS + 3 * 10**9)) == steps  # or its draft there


def test_what_moving_clips_takes_is_not_there_for_steps() -> None:
    far = CHOICE.model_copy(update={"moves_s": 1.5})
    left_s = 4.0 * ROOM + HANDING_S + 0.01
    assert steps_of(due(left_s).model_copy(update={"steps": far})) == 6
    assert steps_of(due(left_s + 1.5).model_copy(update={"steps": far})) == 12


def test_a_final_without_a_choice_is_as_decided() -> None:
    assert steps_of(open_job(deadline_at_ns=NOW_NS)) == 0


def test_a_final_without_a_deadline_is_as_decided_whoever_waits() -> None:
    dear = CHOICE.model_copy(update={"dear_from_s": 7.0})
    assert settled(open_job(steps=dear), begins_ns=NOW_NS, wait_s=99.0) == AS_DECIDED


@pytest.mark.parametrize("deadline_s", [3600.0, 3.0, 1.0])
def test_where_others_lose_more_than_a_final_gains_it_has_fewer_steps_and_says_so(deadline_s: float) -> None:
    dear = CHOICE.model_copy(update={"dear_from_s": 7.0})
    job = due(deadline_s).model_copy(update={"steps": dear})
    assert settled(job, begins_ns=NOW_NS, wait_s=7.0) == (6, True)
    steps, others_wait = settled(job, begins_ns=NOW_NS, wait_s=6.9)
    assert (steps, others_wait) == (6 if deadline_s == 3.0 else 12, False)


def test_whose_turn_it_is_has_fewer_steps_by_what_waits_behind_it_for_each_slot() -> None:
    dear = CHOICE.model_copy(update={"dear_from_s": 7.0})
    shared = [({}, 1, 6), ({}, 2, 12), ({"tier": "priority"}, 1, 6)]
    apart = [({"model": "another"}, 1, 12), ({"tier": "flex"}, 1, 12)]  # or of a tier that waits for it anyway
    for behind, slots, steps in (*shared, *apart):
        jobs = OpenJobs(Quotas())
        known = {"deadline_at_ns": NOW_NS + 3600 * 10**9, "placed_at_ns": NOW_NS - 3600 * 10**9}
        jobs.place(open_job("due", work_s=4.0, gpu_s=4.0, steps=dear, **known))
        for number in range(3):
            jobs.place(open_job(f"behind-{number}", work_s=4.0, **behind))
        told = jobs.next(asks_for("due"), now_ns=NOW_NS, slots=slots)
        assert told is not None
        assert (told.job_id, told.told_steps) == ("due", (steps, steps == 6))
        assert told.gpu_s == (2.0 if steps == 6 else 4.0)


SCORED = with_scores(cloud_card(), scored("refine", 6, 256, 4.3), scored("refine", 12, 256, 4.5))


def test_a_job_that_was_given_back_has_its_steps_again_when_nobody_waits_any_more() -> None:
    dear = CHOICE.model_copy(update={"dear_from_s": 7.0})
    jobs = OpenJobs(Quotas())
    known = {"deadline_at_ns": NOW_NS + 3600 * 10**9, "placed_at_ns": NOW_NS - 10**9}
    jobs.place(open_job("due", work_s=4.0, gpu_s=4.0, steps=dear, **known))
    jobs.place(open_job("behind", work_s=8.0))
    told = jobs.next(asks_for("due"), now_ns=NOW_NS)
    assert told is not None and told.told_steps == (6, True)
    jobs.settle("behind", gpu_s=0.0, now_ns=NOW_NS + 10**9)
    later_ns = NOW_NS + 60 * 10**9  # the worker never showed it, and asks again
    again = jobs.next(asks_for("due"), now_ns=later_ns)
    assert again is not None and (again.told_steps, again.gpu_s) == ((12, False), 4.0)


def choice_of(model: ModelCard = SCORED, intent: str = "render", **changes: object) -> StepChoice:
    seen = view()
    seen.cards = cards(draft_card(), model)
    asked = query(
        **{"intent": intent, "requested_plan": "refine", "allow_reduced": True, "deadline_s": 60.0, **changes}
    )
    job = record(seen, asked, place(seen, asked), now_ns=NOW_NS)
    assert job is not None and job.steps is not None
    return job.steps


def test_steps_are_dear_from_when_a_cloud_second_costs_others_what_they_are_worth() -> None:
    choice, settings = choice_of(), QoeSettings()
    price = scarcity(settings, final_quality=4.5, wait_s=choice.dear_from_s, work_s=choice.whole_s)
    assert (choice.whole, choice.fewer) == (12, 6)
    assert 0.0 < choice.dear_from_s < settings.final_best_s
    assert price * (choice.whole_s - choice.fewer_s) == pytest.approx(
        (1.0 - settings.draft_weight_render) * (4.5 - 4.3)
    )
    assert choice_of(intent="iterate").dear_from_s < choice.dear_from_s  # to whom the final is worth less


def test_steps_are_never_dear_where_nobody_has_measured_their_worth() -> None:
    assert choice_of(cloud_card()).dear_from_s == NEVER_S


def test_steps_that_are_worth_more_than_any_wait_are_never_dear() -> None:
    assert scarce_from(QoeSettings(), 1e3, final_quality=4.5, work_s=1.0) == NEVER_S
    assert scarce_from(QoeSettings(), -1.0, final_quality=4.5, work_s=1.0) == 0.0
    assert StepChoice.model_validate_json('{"whole": 4, "whole_s": 2, "fewer": 2, "fewer_s": 1}').dear_from_s == NEVER_S


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


@pytest.mark.parametrize(("waiting_s", "deadline_s", "steps"), [(0.0, 600.0, 12), (60.0, 600.0, 6), (24.0, 30.0, 6)])
def test_a_line_is_told_of_the_steps_that_a_final_will_have_if_as_much_waits_when_its_turn_comes(
    waiting_s: float, deadline_s: float, steps: int
) -> None:
    """Which are settled only then: at the end, with nobody else in line, it has all of them."""
    seen, asked = view(), query(requested_plan="refine", allow_reduced=True, deadline_s=deadline_s)
    scores = () if deadline_s == 30.0 else (scored("refine", 6, 256, 4.3), scored("refine", 12, 256, 4.5))
    seen.cards = cards(draft_card(), with_scores(cloud_card(), *scores))  # without: others never count for more
    if waiting_s:
        due_ns = NOW_NS + round((waiting_s + 1.0) * 1e9)
        seen.jobs.place(open_job("before", work_s=waiting_s, deadline_at_ns=due_ns))
    job = record(seen, asked, place(seen, asked), now_ns=NOW_NS)
    assert job is not None and job.steps is not None
    assert job.settled_steps == 0
    assert job.work_s == pytest.approx(job.steps.seconds(steps))
    assert seen.jobs.line("default").work_s == pytest.approx(waiting_s + job.work_s)
    seen.jobs.settle("before", gpu_s=0.0, now_ns=NOW_NS)
    told = seen.jobs.next(asks_for(job.job_id), now_ns=NOW_NS)
    assert told is not None
    assert told.told_steps == (12, False)
    assert told.work_s == pytest.approx(job.steps.whole_s)


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
        assert turn == Turn(tenant="local", job_id=made.job_id, told=ToldSteps(steps))
