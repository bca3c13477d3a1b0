"""How the spool is emptied: in order, at a pace, around what cannot go, and only while the centre answers."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from adaptivegen.errors import BrokerUnavailable, DeadlineExceeded, ResourceExhausted, StorageFailure
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.removal import remove
from adaptivegen.jobs.spec import DraftManifest, JobSpec, job_key
from adaptivegen.placement import Decision
from edge_node.spool.circuit import LONGEST_SETTLE_S
from edge_node.spool.drain import FIRST_PAUSE_S, LONGEST_PAUSE_S, Drainer
from edge_node.spool.own_store import SpoolFailure
from edge_node.spool.pace import HINT_JITTER, LONGEST_PUT_OFF_S, LONGEST_SPREAD_S, PER_S, SPREAD_SHARE
from edge_node.spool.reach import Reach
from edge_node.spool.rules import Later
from edge_node.spool.spool import Envelope
from tests.jobs import JOB_ID, make_spec
from tests.unit.edge.spooling import Bench, bench
from tests.unit.jobs.crashing import queued_ids

IDS = [f"{JOB_ID[:-1]}{number}" for number in range(4)]


class Draining:
    """A drainer on virtual time, and what it told."""

    def __init__(self, made: Bench, seed: int = 7) -> None:
        self.made = made
        self.answers: list[Decision | Later | None] = []  # of schedulers, the last one for ever
        self.asked: list[tuple[str, float]] = []
        self.drafting: set[str] = set()
        self.away: BrokerUnavailable | None = None
        self.handed: list[str] = []
        self.gone: list[str] = []
        self.begun: list[str] = []
        self.reach = Reach(made.centre, prove=self.prove, node_id="edge-1", clock=made.clock, budget_s=5.0)
        self.drainer = Drainer(
            spool=made.spool,
            reach=self.reach,
            centre=made.centre,
            clock=made.clock,
            node_id="edge-1",
            again=self.again,
            rng=random.Random(seed),
            drafting=lambda tenant, job_id: job_id in self.drafting,
            handed=self.told,
            gone=self.gone.append,
            begin_draft=self.begin,
        )

    async def prove(self) -> None:
        """As the centre is."""
        if self.away is not None:
            raise self.away

    async def again(self, spec: JobSpec, drafted: bool) -> Decision | Later | None:
        self.asked.append((spec.id, self.made.clock.monotonic_s()))
        return self.answers.pop(0) if len(self.answers) > 1 else next(iter(self.answers), None)

    async def told(self, envelope: Envelope, spec: JobSpec, record: JobRecord) -> None:
        self.handed.append(spec.id)

    async def begin(self, spec: JobSpec, record: JobRecord) -> None:
        self.begun.append(spec.id)

    async def goes_on(self, seconds: float) -> None:
        """Time passes, in steps in which files are written."""
        for _ in range(round(seconds / 0.1)):
            await self.made.clock.advance(0.1)
            for _ in range(10):
                await asyncio.sleep(0.0005)  # the threads that write files are on real time

    async def all_of(self, count: int) -> None:
        """Time passes until so many were handed over."""
        while len(self.handed) < count:
            await self.goes_on(0.1)

    async def back_after(self, cut_s: float, job_id: str) -> float:
        """Cut off for so long, with one job accepted meanwhile, and back; the time at which it is."""
        self.reach.trip(BrokerUnavailable("away"))
        await self.made.put(make_spec(job_id=job_id), draft=None)
        await self.goes_on(0.1)
        await self.made.clock.advance(cut_s)
        await self.reach.probe()
        await self.made.clock.advance(LONGEST_SETTLE_S)
        await self.reach.probe()
        assert not self.reach.cut_off
        return self.made.clock.monotonic_s()


@asynccontextmanager
async def draining(folder: Path, ids: list[str], *, seed: int = 7) -> AsyncIterator[Draining]:
    made = await bench(folder)
    for job_id in ids:
        await made.put(make_spec(job_id=job_id), draft=None)
    found = Draining(made, seed)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        running = group.create_task(found.drainer.run())
        yield found
        assert not running.done()
        running.cancel()


async def test_the_oldest_go_first_and_no_faster_than_the_pace(tmp_path: Path) -> None:
    async with draining(tmp_path, list(reversed(IDS))) as found:
        begun_s = found.made.clock.monotonic_s()
        await found.all_of(len(IDS))
        assert found.handed == IDS
        assert await queued_ids(found.made.bus) == IDS
        assert found.made.clock.monotonic_s() - begun_s >= (len(IDS) - 1) / PER_S


async def test_a_job_whose_draft_is_in_the_making_waits_for_it_and_holds_up_no_other(tmp_path: Path) -> None:
    async with draining(tmp_path, IDS[:2]) as found:
        found.drafting = {IDS[0]}
        await found.all_of(1)
        await found.goes_on(2)
        assert found.handed == [IDS[1]]
        found.drafting = set()
        await found.all_of(2)
        assert found.handed == [IDS[1], IDS[0]]


async def test_a_draft_that_a_former_life_left_out_is_begun(tmp_path: Path) -> None:
    async with draining(tmp_path, IDS[:1]) as found:
        await found.all_of(1)
        assert found.begun == IDS[:1]


async def test_a_damaged_job_stays_and_holds_up_no_other(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    for job_id in IDS[:2]:
        await made.put(make_spec(job_id=job_id), draft=None)
    await made.spool.close()
    (tmp_path / "jobs" / job_key("t", IDS[0], "spec")).write_text("damaged")
    async with draining(tmp_path, []) as found:
        await found.all_of(1)
        await found.goes_on(1)
        assert found.handed == [IDS[1]]
        assert found.made.spool.ids("t") == [IDS[0]]
        assert not found.reach.cut_off


async def test_while_the_way_fails_it_is_tried_more_and_more_seldom_and_nothing_is_lost(tmp_path: Path) -> None:
    async with draining(tmp_path, IDS[:2]) as found:
        tries: list[float] = []
        submit = found.made.centre.submit

        async def full(*args: object) -> None:
            tries.append(found.made.clock.monotonic_s())
            raise ResourceExhausted("the queue is full")

        found.made.centre.submit = full  # type: ignore[method-assign, assignment]
        await found.goes_on(8)
        pauses = [after - before for before, after in pairwise(tries)]
        assert len(pauses) >= 2
        assert all(pause_s >= 0.99 * FIRST_PAUSE_S * 2**turn for turn, pause_s in enumerate(pauses))
        assert found.handed == []
        assert not found.reach.cut_off  # it answered
        found.made.centre.submit = submit  # type: ignore[method-assign]
        await found.all_of(2)
        assert found.made.clock.monotonic_s() < 8 + 2 * LONGEST_PAUSE_S


async def test_a_cut_on_the_way_stops_it_until_the_centre_is_back(tmp_path: Path) -> None:
    async with draining(tmp_path, IDS[:2]) as found:
        submit = found.made.centre.submit
        tries: list[int] = []

        async def away(*args: object) -> None:
            tries.append(1)
            raise BrokerUnavailable("away")

        found.made.centre.submit = away  # type: ignore[method-assign, assignment]
        await found.goes_on(3)
        assert not found.reach.cut_off  # probes work: it is these jobs, and they rest longer and longer
        found.away = BrokerUnavailable("away")
        for _ in range(2):
            await found.reach.probe()
        assert found.reach.cut_off
        tried = len(tries)
        await found.goes_on(5)
        assert len(tries) == tried >= 2
        found.made.centre.submit, found.away = submit, None
        await found.reach.probe()
        await found.goes_on(1.2)
        await found.reach.probe()
        assert not found.reach.cut_off
        await found.all_of(2)
        assert found.handed == IDS[:2]


async def test_what_comes_into_an_empty_spool_is_handed_over_as_well(tmp_path: Path) -> None:
    async with draining(tmp_path, []) as found:
        await found.goes_on(1)
        await found.made.put(make_spec(job_id=IDS[0]), draft=None)
        await found.all_of(1)
        assert found.handed == IDS[:1]


async def test_a_job_that_another_holds_waits_for_its_turn(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    await made.put(make_spec(), draft=None)
    found = Draining(made)
    async with made.spool.lock("t", JOB_ID):  # a cancel is at it
        draining_ = asyncio.create_task(found.drainer.drain())
        for _ in range(50):
            await asyncio.sleep(0.0002)
        assert (found.handed, made.spool.state("t", JOB_ID)) == ([], "spooled")
    await found.all_of(1)
    await found.goes_on(0.2)
    assert await draining_


async def test_a_probe_that_fails_is_counted_and_one_that_works_closes_it_after_a_while(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    failing: list[Exception] = [StorageFailure("away")]

    async def prove() -> None:
        if failing:
            raise failing[0]

    reach = Reach(made.centre, prove=prove, node_id="edge-1", clock=made.clock, budget_s=1.0)
    await reach.probe()
    assert not reach.cut_off
    await reach.probe()
    assert reach.cut_off
    assert reach.why == "storage_failure"
    assert not reach.connected.is_set()
    await made.clock.advance(7)
    assert reach.cut_s == 7
    failing.clear()
    await reach.probe()
    await made.clock.advance(LONGEST_SETTLE_S)
    assert reach.cut_off
    await reach.probe()
    assert (reach.cut_off, reach.cut_s, reach.connected.is_set()) == (False, 0.0, True)


async def test_what_a_request_waits_for_the_centre_has_a_bound(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    reach = Reach(made.centre, prove=Draining(made).prove, node_id="edge-1", clock=made.clock, budget_s=0.01)
    for _ in range(2):
        with pytest.raises(DeadlineExceeded):
            await reach.call(asyncio.Event().wait())
    assert not reach.cut_off  # it may be one bad object: a probe tells
    await reach.probe()
    assert not reach.cut_off


@pytest.mark.parametrize("error", [ValueError("a bug"), SpoolFailure("this edge's disk"), StorageFailure("its object")])
async def test_a_job_that_cannot_be_handed_over_holds_up_no_other_and_cuts_nothing_off(
    tmp_path: Path, error: Exception
) -> None:
    async with draining(tmp_path, IDS[:3]) as found:
        submit = found.made.centre.submit

        async def one_fails(spec: JobSpec, draft: DraftManifest | None = None) -> tuple[JobSpec, JobRecord]:
            if spec.id == IDS[0]:
                raise error
            return await submit(spec, draft)

        found.made.centre.submit = one_fails  # type: ignore[method-assign]
        await found.all_of(2)
        assert found.handed == IDS[1:3]
        await found.goes_on(3)
        assert not found.reach.cut_off
        found.made.centre.submit = submit  # type: ignore[method-assign]
        await found.all_of(3)


async def test_edges_that_were_cut_off_together_begin_apart_within_a_tenth_of_the_cut(tmp_path: Path) -> None:
    cut_s, waited = 100.0, []
    for seed in range(4):
        async with draining(tmp_path / f"{seed}", [], seed=seed) as found:
            back_s = await found.back_after(cut_s, IDS[0])
            await found.all_of(1)
            waited.append(found.made.clock.monotonic_s() - back_s)
    most_s = (cut_s + LONGEST_SETTLE_S) * SPREAD_SHARE + 8.0  # with the steps in which time passes here
    assert max(waited) < most_s < LONGEST_SPREAD_S
    assert max(waited) - min(waited) > 1.0


async def test_an_edge_that_was_started_anew_in_a_cut_is_spread_by_how_long_its_oldest_job_waits(
    tmp_path: Path,
) -> None:
    made = await bench(tmp_path)
    await made.put(make_spec(job_id=IDS[0]), draft=None)
    await made.clock.advance(3600)
    await made.start()
    found = Draining(made, seed=2)
    begun_s = made.clock.monotonic_s()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(found.drainer.run())
        await found.all_of(1)
        running.cancel()
    assert 1.0 < made.clock.monotonic_s() - begun_s < LONGEST_SPREAD_S + 8


async def test_a_scheduler_without_room_is_asked_again_when_it_said_and_meanwhile_the_job_can_be_cancelled(
    tmp_path: Path,
) -> None:
    async with draining(tmp_path, IDS[:1]) as found:
        found.answers = [Later(20.0, of_tenant=False, code="overloaded"), None]
        await found.goes_on(19)
        assert found.handed == []
        assert found.made.spool.state("t", IDS[0]) == "spooled"
        await found.all_of(1)
        (_, first_s), (_, second_s) = found.asked
        assert 20.0 <= second_s - first_s <= 20.0 * (1 + HINT_JITTER) + 5.0


async def test_a_scheduler_that_never_has_room_keeps_jobs_for_a_bound_and_then_at_the_pace(tmp_path: Path) -> None:
    async with draining(tmp_path, IDS) as found:
        begun_s = found.made.clock.monotonic_s()
        found.answers = [Later(25.0, of_tenant=False, code="overloaded")]
        await found.all_of(len(IDS))
        took_s = found.made.clock.monotonic_s() - begun_s
        assert LONGEST_PUT_OFF_S <= took_s <= 1.5 * LONGEST_PUT_OFF_S  # once for all, not once for each
        assert [job_id for job_id, _ in found.asked[:3]] == [IDS[0]] * 3  # the others need not ask to know it


async def test_a_tenant_without_room_holds_up_no_other(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    await made.put(make_spec(job_id=IDS[0]), draft=None)
    await made.put(make_spec(job_id=IDS[1]).model_copy(update={"tenant": "other"}), draft=None)
    found = Draining(made)
    found.answers = [Later(30.0, of_tenant=True, code="quota_exceeded"), None]
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(found.drainer.run())
        await found.all_of(1)
        await found.goes_on(5)
        assert found.handed == [IDS[1]]
        await found.all_of(2)
        running.cancel()


async def test_a_job_whose_deadline_comes_sooner_does_not_wait_with_its_tenants_others(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    await made.put(make_spec(job_id=IDS[0]), draft=None)
    urgent = make_spec(job_id=IDS[1])
    request = urgent.request.model_copy(update={"deadline_s": 9.0})
    dated = {"request": request, "created_at_ns": made.clock.now_ns()}
    await made.put(urgent.model_copy(update=dated), draft=None)
    found = Draining(made)
    found.answers = [Later(40.0, of_tenant=True, code="overloaded"), None]
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(found.drainer.run())
        await found.all_of(1)
        assert (found.handed, [job_id for job_id, _ in found.asked]) == ([IDS[1]], [IDS[0], IDS[1]])
        assert made.clock.monotonic_s() < 9.0
        running.cancel()


async def test_a_job_that_was_deleted_at_the_centre_is_told_gone_and_its_key_is_remembered(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    spec = make_spec(job_id=IDS[0])
    await made.centre.submit(spec)
    await remove(made.centre, "t", IDS[0], by="an operator")
    await made.put(spec, draft=None, key="k")
    found = Draining(made)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        running = group.create_task(found.drainer.run())
        while not found.gone:
            await found.goes_on(0.1)
        running.cancel()
    assert (found.gone, found.handed, len(made.spool)) == ([IDS[0]], [], 0)
    seen = made.spool.seen.find("t", "k")
    assert seen is not None and seen.id == IDS[0]
