"""What schedulers tell one another, and what the store tells them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.base import Bus, Message
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import BrokerUnavailable, InvalidRequest
from adaptivegen.jobs.reconcile import Sightings, reconcile
from adaptivegen.jobs.record import claim
from adaptivegen.jobs.store import JobStore
from adaptivegen.placement import Candidate, Outcome, Ticket, Turn
from scheduler.decide.usage import UsageTold
from scheduler.decide.view import View
from scheduler.herald import MAX_WAITING, SUBJECT, USAGE_BUCKET, USAGE_EVERY_S, Herald, JobsTold
from scheduler.placement import EJECTED_REST_S, Placement
from scheduler.steady import SteadyTime
from scheduler.surveys import LOOK_EVERY_S, OpenJobSurvey, StorageSurvey
from tests.jobs import make_spec
from tests.unit.scheduler.away import AwayBus
from tests.unit.scheduler.builders import JOB, NOW_NS, draft_card, open_job, query, report, view


class Shared:
    """A broker and several schedulers on it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bus = AwayBus(self.clock)

    def scheduler(self, name: str) -> tuple[View, Herald]:
        seen = view()
        seen.decider = name
        return seen, Herald(seen, cast(Bus, self.bus), clock=self.clock, time=SteadyTime(self.clock))


@asynccontextmanager
async def running(*heralds: Herald) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(herald.run()) for herald in heralds]
        await settle()
        yield
        for task in tasks:
            task.cancel()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_job_that_one_scheduler_places_is_known_to_the_others() -> None:
    shared = Shared()
    (one, herald), (other, listening) = shared.scheduler("s-1"), shared.scheduler("s-2")
    placement = Placement(one, time=SteadyTime(shared.clock), rng=random.Random(1), placed=herald.placed)
    async with running(herald, listening):
        await placement.place(query())
        await settle()
        assert other.jobs.line("default").waiting == one.jobs.line("default").waiting == 1
        assert other.jobs.reserved_s("local") == one.jobs.reserved_s("local")


async def test_a_draft_that_one_scheduler_sends_to_an_edge_counts_at_the_others_and_its_session_stays_there() -> None:
    """Else two schedulers that are asked at once fill the same edge until its next heartbeat."""
    shared = Shared()
    (one, herald), (other, listening) = shared.scheduler("s-1"), shared.scheduler("s-2")
    placement = Placement(one, time=SteadyTime(shared.clock), rng=random.Random(1), placed=herald.placed)
    async with running(herald, listening):
        decision = await placement.place(query(session="ada"))
        await settle()
        now_ns = shared.clock.now_ns()
        assert decision.drafter == "edge-1"
        here, there = (seen.nodes.get("edge-1") for seen in (one, other))
        assert here is not None and there is not None
        assert there.remaining_s(now_ns) == here.remaining_s(now_ns) > 0.0
        assert there.waiting(now_ns) == here.waiting(now_ns)
        session = other.sessions.get("local", "ada", now_s=now_ns / 1e9)
        assert session is not None and session.edge_id == "edge-1"
        assert other.sent_s("edge-1", "edge-1") == now_ns / 1e9
        await placement.place(query(draft_known=True))  # a final of a draft that is there sends none
        await settle()
        assert there.remaining_s(now_ns) == here.remaining_s(now_ns)


async def test_two_schedulers_that_place_one_session_at_once_agree_on_where_it_stays() -> None:
    """Else each would take over what the other had, again and again."""
    shared = Shared()
    lent = {"lends": draft_card().digest, "grpc_address": "127.0.0.1:1"}
    both = [shared.scheduler(name) for name in ("s-1", "s-2")]
    placements = []
    for seen, herald in both:
        for name in ("edge-1", "edge-2"):
            seen.hear(report(name, seq=5, **lent), now_ns=shared.clock.now_ns())
        placements.append(Placement(seen, time=SteadyTime(shared.clock), rng=random.Random(1), placed=herald.placed))
    drafters = []
    async with running(*[herald for _, herald in both]):
        for number in range(4):
            asked = {"session": "ada", "draft_digest": draft_card().digest}
            made = [
                await placement.place(query(job_id=f"vid_{2 * number + k:026d}", edge_id=f"edge-{k + 1}", **asked))
                for k, placement in enumerate(placements)
            ]
            drafters.append([decision.drafter for decision in made])
            await settle()
            await shared.clock.advance(0.2)
    assert drafters == [["edge-1", "edge-2"], *[["edge-1", "edge-1"]] * 3]


def test_a_scheduler_of_an_older_version_tells_of_no_drafts() -> None:
    shared = Shared()
    seen, herald = shared.scheduler("s-1")
    told = json.loads(JobsTold(placed=(open_job("a"),)).model_dump_json())
    del told["placed"][0]["sent"]
    herald.take(Message(f"{SUBJECT}s-2", json.dumps(told).encode()))
    assert (len(seen.jobs), herald.malformed) == (1, 0)


async def test_what_was_used_is_known_to_the_others_and_to_one_that_starts_anew() -> None:
    shared = Shared()
    (one, herald), (other, listening) = shared.scheduler("s-1"), shared.scheduler("s-2")
    async with running(herald, listening):
        one.jobs.settle_unknown("a", "t", 5.0, NOW_NS - 10**10, now_ns=NOW_NS)
        for _ in range(3):
            await shared.clock.advance(USAGE_EVERY_S)
            await settle()
        now_s = shared.clock.now_ns() / 1e9
        assert other.jobs.usage.used_s("t", now_s=now_s) == 5.0
    again, waking = shared.scheduler("s-1")
    await waking.share_usage()
    assert again.jobs.usage.used_s("t", now_s=now_s) == 5.0


async def test_nonsense_of_others_is_counted_and_passed_over() -> None:
    shared = Shared()
    seen, herald = shared.scheduler("s-1")
    for data in (b"", b"{}", b'{"placed": [{"job_id": ""}]}', b'{"placed": [{"work_s": NaN}]}', b"[" * 10_000):
        herald.take(Message(f"{SUBJECT}s-2", data))
    assert (herald.malformed, len(seen.jobs)) == (5, 0)
    bucket = await shared.bus.kv(USAGE_BUCKET)
    await bucket.put("s-2", b'{"cells": {"t": {"1": -5}}}')
    await herald.share_usage()
    assert seen.jobs.usage.revision == 0


async def test_jobs_of_the_future_are_of_now_and_its_own_are_no_news() -> None:
    shared = Shared()
    seen, herald = shared.scheduler("s-1")
    told = JobsTold(placed=(open_job("a", placed_at_ns=2**62),)).model_dump_json().encode()
    herald.take(Message(f"{SUBJECT}s-1", told))
    assert len(seen.jobs) == 0
    herald.take(Message(f"{SUBJECT}s-2", told))
    seen.jobs.forget_missing(lambda job_id: False, since_ns=NOW_NS + 10**12, now_ns=NOW_NS + 10**12)
    assert len(seen.jobs) == 0  # it was as old as any


async def test_a_broker_that_is_away_makes_nobody_wait_and_is_told_again_when_it_is_back() -> None:
    shared = Shared()
    (one, herald), (other, listening) = shared.scheduler("s-1"), shared.scheduler("s-2")
    publish = shared.bus.publish

    async def away(*args: object, **kwargs: object) -> None:
        raise BrokerUnavailable("away")

    async with running(herald, listening):
        shared.bus.away, shared.bus.publish = True, away  # type: ignore[method-assign]
        for number in range(MAX_WAITING + 10):
            herald.placed(open_job(f"job-{number}"))
        assert len(herald._waiting) == MAX_WAITING
        await shared.clock.advance(3 * USAGE_EVERY_S)
        await settle()
        shared.bus.away, shared.bus.publish = False, publish  # type: ignore[method-assign]
        herald.placed(open_job("later"))
        await settle()
        assert "later" in other.jobs
    assert len(one.jobs) == 0


async def test_whatever_is_wrong_with_what_is_told_a_scheduler_goes_on() -> None:
    shared = Shared()
    seen, herald = shared.scheduler("s-1")

    def broken(*, now_s: float) -> UsageTold:
        raise ValueError("broken")

    seen.jobs.usage.told = broken  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(herald.run())
        for _ in range(3):
            await settle()
            await shared.clock.advance(USAGE_EVERY_S)
        assert not task.done()
        task.cancel()


@pytest.mark.parametrize("tenant", ["a" * 64, "A", "a.b", "*"])
async def test_an_outcome_of_what_can_be_no_tenant_is_refused(tenant: str) -> None:
    told = Outcome(job_id=JOB, edge_id="e", worker_id="w", plan="refine", status="completed", tenant=tenant, gpu_s=1.0)
    with pytest.raises(InvalidRequest, match="tenant"):
        await placement_of(view()).observe(told)


async def test_the_outcome_of_a_draft_does_not_end_the_final_that_was_asked_for_since() -> None:
    seen, clock = view(), ManualClock()
    placement = Placement(seen, time=SteadyTime(clock), rng=random.Random(1))
    draft = await placement.place(query(requested_plan="draft"))
    await clock.advance(1.0)
    final = await placement.place(query(requested_plan="refine", draft_known=True))
    told = Outcome(job_id=JOB, edge_id="edge-1", worker_id="", plan="draft", status="completed", tenant="local")
    await placement.observe(told.model_copy(update={"decided_at_ns": draft.decided_at_ns}))
    assert seen.jobs.line("default").waiting == 1
    await placement.observe(told.model_copy(update={"decided_at_ns": final.decided_at_ns, "plan": "refine"}))
    assert seen.jobs.line("default").waiting == 0


# ---- the store --------------------------------------------------------------------------------------------------


async def test_open_jobs_of_the_store_are_known_after_one_pass_and_forgotten_when_they_have_ended() -> None:
    clock = ManualClock()
    jobs = JobStore(blob=open_store("memory://"), bus=AwayBus(clock), clock=clock)
    seen, time = view(), SteadyTime(clock)
    survey, sightings = OpenJobSurvey(seen, time=time), Sightings(clock)
    specs = [make_spec(job_id=f"vid_{number:026d}") for number in range(3)]
    for spec in specs:
        await jobs.submit(spec)
    await jobs.change("t", specs[0].id, lambda r: claim(r, worker_id="w", now_ns=clock.now_ns(), lease_s=30.0))
    await reconcile(jobs, patience_s=60.0, sightings=sightings, listener=survey)
    assert (seen.jobs.count("t"), seen.jobs.line("default").waiting) == (3, 2)
    await jobs.cancel("t", specs[1].id)
    await clock.advance(120.0)
    await reconcile(jobs, patience_s=600.0, sightings=sightings, listener=survey)
    assert (seen.jobs.count("t"), seen.jobs.line("default").waiting) == (2, 1)


async def test_a_job_whose_decision_is_odd_is_bounded_and_a_listener_that_fails_keeps_no_job_from_being_put_right() -> (
    None
):
    clock = ManualClock()
    jobs = JobStore(blob=open_store("memory://"), bus=AwayBus(clock), clock=clock)
    seen, spec = view(), make_spec(plan="refine")
    odd = Candidate(plan="refine", feasible=True, reason="", gpu_s=-1.0, final_s=1e300)
    decision = spec.decision.model_copy(update={"decided_by": "x" * 100, "decided_at_ns": 2**62, "candidates": (odd,)})
    spec = spec.model_copy(update={"decision": decision, "cloud_model": "pocket-cloud"})
    await jobs.submit(spec)
    survey = OpenJobSurvey(seen, time=SteadyTime(clock))
    await reconcile(jobs, patience_s=60.0, sightings=Sightings(clock), listener=survey)
    found = seen.jobs.get(spec.id)
    assert found is not None and found.work_s == pytest.approx(2.17)  # by the card, in four steps
    survey.found = None  # type: ignore[method-assign, assignment]
    sightings = Sightings(clock)
    queue = await jobs.bus.work_queue("default", ack_wait_s=30.0)
    delivery = await queue.pull(timeout_s=0)
    assert delivery is not None
    await delivery.ack()  # its message is lost
    tallies = []
    for _ in range(2):
        tallies.append(await reconcile(jobs, patience_s=60.0, sightings=sightings, listener=survey))
        await clock.advance(61.0)
    assert [(tally.requeued, tally.failed) for tally in tallies] == [(0, 0), (1, 0)]


async def test_stored_bytes_are_counted_by_tenant_while_somebodys_are_limited() -> None:
    clock, blob, seen = ManualClock(), open_store("memory://"), view()
    await blob.put("out/a/vid_1/1/x.mp4", b"12345")
    await blob.put("out/a/vid_2/1/x.mp4", b"123")
    await blob.put("out/b/vid_3/1/x.mp4", b"1")
    async with asyncio.TaskGroup() as group:
        counting = group.create_task(StorageSurvey(seen, blob, MemoryBus(clock), clock=clock).run())
        await settle()
        assert seen.stored.by_tenant == {}
        seen.quotas.set({"a": {"stored_bytes": 10}})
        async with asyncio.timeout(20):
            while not seen.stored.by_tenant:
                await clock.advance(LOOK_EVERY_S)
                await asyncio.sleep(0.001)
        counting.cancel()
    assert seen.stored.by_tenant == {"a": 8, "b": 1}


# ---- turns and outcomes -----------------------------------------------------------------------------------------


def placement_of(seen: View) -> Placement:
    return Placement(seen, time=SteadyTime(ManualClock()), rng=random.Random(1))


def ticket(**changes: object) -> Ticket:
    values = {"worker_id": "worker-1", "pool": "default", "model": "pocket-cloud", "tenant": "local", "job_id": JOB}
    return Ticket.model_validate({**values, **changes})


async def test_a_worker_is_told_whose_turn_it_is() -> None:
    seen = view()
    placement, light = placement_of(seen), "vid_" + "5" * 26
    for number in range(3):
        await placement.place(query(job_id=f"vid_{number:026d}", tenant="heavy"))
    await placement.place(query(job_id=light, tenant="light"))
    first = await placement.next_job(ticket(tenant="heavy", job_id=f"vid_{0:026d}"))
    assert first == Turn(tenant="heavy", job_id=f"vid_{0:026d}")
    second = await placement.next_job(ticket(tenant="heavy", job_id=f"vid_{1:026d}"))
    assert second == Turn(tenant="light", job_id=light)


async def test_a_worker_that_only_fails_is_to_rest_unless_it_is_the_only_one() -> None:
    for others, rest_s in (((report("worker-2"), report("worker-3")), EJECTED_REST_S), ((), 0.0)):
        seen = view(report("edge-1"), report("worker-1"), *others)
        seen.hear(report("worker-1", seq=2, failed_in_row=9), now_ns=NOW_NS)
        turn = await placement_of(seen).next_job(ticket())
        assert (turn.job_id, turn.rest_s) == (JOB, rest_s)


@pytest.mark.parametrize(
    "changes",
    [
        {"worker_id": "../x"},
        {"pool": ""},
        {"model": "A"},
        {"tenant": "*"},
        {"job_id": "x"},
        {"free_in_s": 61.0},
        {"free_in_s": float("nan")},
    ],
)
async def test_a_ticket_that_is_none_is_refused_by_name(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(changes))):
        await placement_of(view()).next_job(ticket(**changes))


@pytest.mark.parametrize("gpu_s", [-1.0, float("nan")])
async def test_an_outcome_with_impossible_seconds_is_refused(gpu_s: float) -> None:
    told = Outcome(job_id=JOB, edge_id="e", worker_id="w", plan="refine", status="completed").model_copy(
        update={"gpu_s": gpu_s}
    )
    with pytest.raises(InvalidRequest, match="gpu_s"):
        await placement_of(view()).observe(told)


@pytest.mark.parametrize(
    ("status", "plan", "gpu_s", "charged_s"),
    [
        ("completed", "refine", 4.0, 4.0),
        ("completed", "refine", 0.0, 6.12),  # by a worker that does not tell
        ("failed", "refine", 0.0, 6.12),  # the platform's faults end no job
        ("cancelled", "refine", 0.0, 6.12),
        ("completed", "draft", 0.0, 0.0),
    ],
)
async def test_what_a_tenant_is_charged_follows_what_became_of_its_job(
    status: str, plan: str, gpu_s: float, charged_s: float
) -> None:
    seen, clock = view(), ManualClock()
    placement = Placement(seen, time=SteadyTime(clock), rng=random.Random(1))
    decision = await placement.place(query(requested_plan=plan))
    await placement.next_job(ticket())
    seen.hear(report("worker-1", seq=2, at_hand=(JOB,)), now_ns=clock.now_ns())
    await clock.advance(100.0)
    told = Outcome(job_id=JOB, edge_id="edge-1", worker_id="w", plan=plan, status=status, tenant="local", gpu_s=gpu_s)
    await placement.observe(told.model_copy(update={"decided_at_ns": decision.decided_at_ns}))
    assert seen.jobs.usage.used_s("local", now_s=clock.now_ns() / 1e9) == pytest.approx(charged_s, abs=0.01)
    assert seen.jobs.count("local") == 0
