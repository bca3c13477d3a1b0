"""Whose turn it is: workers that ask before they begin, on virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adaptivegen.errors import BrokerUnavailable, GenerationFailed
from adaptivegen.jobs.record import JobRecord
from adaptivegen.placement import AS_DECIDED, Ticket, ToldSteps, Turn
from tests.jobs import JOB_ID, make_spec
from tests.unit.worker.bench import Cloud, ScriptedRunner, cloud, done, make_worker

FIRST, SECOND, THIRD, FOURTH = (JOB_ID[:-1] + letter for letter in "1234")


class Scheduler:
    """Names whose turn it is by a list; beyond it the job whose message came."""

    def __init__(self, *job_ids: str, rest_s: float = 0.0, told: ToldSteps = AS_DECIDED) -> None:
        self.due = list(job_ids)
        self.rest_s = rest_s
        self.told = told
        self.asked: list[str] = []
        self.free_in_s: list[float] = []

    async def whose(self, ticket: Ticket) -> Turn | None:
        self.asked.append(ticket.job_id)
        self.free_in_s.append(ticket.free_in_s)
        rest_s, self.rest_s = self.rest_s, 0.0
        job_id = self.due.pop(0) if self.due else ticket.job_id
        return Turn(tenant="t", job_id=job_id, rest_s=rest_s, told=self.told)


class NoNaks:
    """A broker that does not take so many messages back."""

    def __init__(self, bus: Any, failures: int) -> None:
        self._bus = bus
        self._left = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def work_queue(self, pool: str, **asked: Any) -> Any:
        queue = await self._bus.work_queue(pool, **asked)
        pull = queue.pull

        async def pulled(*, timeout_s: float) -> Any:
            delivery = await pull(timeout_s=timeout_s)
            if delivery is not None and self._left:
                self._left -= 1

                async def nak(delay_s: float) -> None:
                    raise BrokerUnavailable("no answer")

                delivery.nak = nak
            return delivery

        queue.pull = pulled
        return queue


async def submit(parts: Cloud, *job_ids: str) -> None:
    for job_id in job_ids:
        await parts.jobs.submit(make_spec(job_id=job_id, plan="cloud"))


async def until_all_ended(parts: Cloud, *job_ids: str) -> list[JobRecord]:
    async def ended() -> bool:
        return all([(await parts.jobs.find("t", job_id)).ended for job_id in job_ids]) and await parts.settled()

    await parts.until(ended, tick_s=0.2)
    return [await parts.jobs.find("t", job_id) for job_id in job_ids]


def begun(parts: Cloud) -> list[str]:
    """The jobs in the order they were begun."""
    return [command.request_id.partition(".")[0] for command, _ in parts.runner.commands]


async def test_the_job_whose_turn_it_is_is_begun_before_the_one_whose_message_came() -> None:
    scheduler = Scheduler(FIRST, THIRD)
    async with cloud(turns=scheduler) as parts:
        parts.runner.go.clear()
        await submit(parts, FIRST)
        await parts.until(lambda: started(parts, 1), tick_s=0.2)
        await submit(parts, SECOND, THIRD)
        parts.runner.go.set()
        records = await until_all_ended(parts, FIRST, SECOND, THIRD)
        assert [(record.status, record.epoch, record.attempts) for record in records] == [("completed", 1, 1)] * 3
        assert begun(parts) == [FIRST, THIRD, SECOND]
        assert THIRD not in scheduler.asked  # its message found it done


async def test_a_job_that_cannot_be_had_is_left_and_the_messages_own_is_begun() -> None:
    gone, ended = JOB_ID[:-1] + "8", JOB_ID[:-1] + "9"
    async with cloud(turns=Scheduler(gone, ended)) as parts:
        parts.runner.go.clear()
        await submit(parts, FIRST)
        await parts.until(lambda: started(parts, 1), tick_s=0.2)
        await submit(parts, SECOND, ended)
        await parts.jobs.cancel("t", ended)
        parts.runner.go.set()
        records = await until_all_ended(parts, FIRST, SECOND)
        assert [record.status for record in records] == ["completed"] * 2
        assert begun(parts) == [FIRST, SECOND]


async def started(parts: Cloud, count: int) -> bool:
    return len(parts.runner.commands) >= count


async def test_a_job_of_another_model_is_not_begun_out_of_turn() -> None:
    other = make_spec(job_id=THIRD, plan="cloud")
    asked = other.request.model_copy(update={"model": "other-model"})
    other = other.model_copy(update={"request": asked, "cloud_model": "other-model"})
    async with cloud(turns=Scheduler(THIRD)) as parts:
        await submit(parts, FIRST)
        await parts.jobs.submit(other)
        await parts.until(lambda: started(parts, 1), tick_s=0.2)
        assert begun(parts) == [FIRST]


async def test_an_attempt_out_of_turn_that_fails_is_made_again_by_its_own_message() -> None:
    async with cloud(turns=Scheduler(SECOND)) as parts:
        parts.runner.errors.append(GenerationFailed("once"))
        await submit(parts, FIRST, SECOND)
        records = await until_all_ended(parts, FIRST, SECOND)
        assert [record.status for record in records] == ["completed"] * 2
        assert (begun(parts).count(SECOND), records[1].epoch) == (2, 2)


async def test_two_workers_that_are_told_the_same_turn_do_not_do_it_twice() -> None:
    async with cloud(turns=Scheduler(THIRD)) as parts:
        model = ScriptedRunner()
        twin = make_worker("1", parts.jobs, parts.bus, model, parts.clock, node_id="w2", turns=Scheduler(THIRD))
        loop = asyncio.get_running_loop().create_task(twin.run())
        await submit(parts, FIRST, SECOND, THIRD)
        records = await until_all_ended(parts, FIRST, SECOND, THIRD)
        loop.cancel()
        assert [(record.status, record.epoch) for record in records] == [("completed", 1)] * 3
        assert len(parts.runner.commands) + len(model.commands) == 3


async def test_a_worker_that_is_told_to_rest_gives_the_job_back_and_asks_again_later() -> None:
    scheduler = Scheduler(rest_s=30.0)
    async with cloud(turns=scheduler) as parts:
        await submit(parts, FIRST)
        began_s = parts.clock.monotonic_s()
        (record,) = await until_all_ended(parts, FIRST)
        assert (record.status, record.attempts) == ("completed", 1)
        assert parts.clock.monotonic_s() - began_s >= 30.0
        assert scheduler.asked == [FIRST, FIRST]


async def test_a_job_that_wants_no_final_or_is_of_another_pool_is_not_begun_out_of_turn() -> None:
    draft = make_spec(job_id=SECOND, plan="draft", want_final=False)
    other = make_spec(job_id=THIRD, plan="cloud")
    other = other.model_copy(update={"decision": other.decision.model_copy(update={"pool": "other"})})
    async with cloud(turns=Scheduler(SECOND, THIRD)) as parts:
        await parts.jobs.submit(draft)
        await parts.jobs.submit(other)
        await submit(parts, FIRST, FOURTH)
        await until_all_ended(parts, FIRST, FOURTH)
        assert sorted(begun(parts)) == [FIRST, FOURTH]
        assert [(await parts.jobs.find("t", job_id)).attempts for job_id in (SECOND, THIRD)] == [0, 0]


async def test_a_message_that_cannot_be_given_back_costs_the_job_whose_turn_it_is_nothing() -> None:
    async with cloud(turns=Scheduler(*[SECOND] * 5), bus=lambda broker: NoNaks(broker, 3)) as parts:
        await submit(parts, FIRST, SECOND)
        records = await until_all_ended(parts, FIRST, SECOND)
        assert [(record.status, record.attempts, record.epoch) for record in records] == [("completed", 1, 1)] * 2


async def test_a_claim_out_of_turn_whose_answer_is_lost_does_not_count_and_gives_nothing_back_again() -> None:
    async with cloud(turns=Scheduler(SECOND)) as parts:
        bucket, failures = await parts.bus.kv("jobs"), 1
        update = bucket.update

        async def lost(key: str, value: bytes, *, revision: int) -> int:
            nonlocal failures
            made = await update(key, value, revision=revision)
            if failures and key.endswith(SECOND):
                failures -= 1
                raise BrokerUnavailable("no answer")
            return made

        bucket.update = lost  # type: ignore[method-assign]
        await submit(parts, FIRST, SECOND)
        records = await until_all_ended(parts, FIRST, SECOND)
        assert [(record.status, record.attempts) for record in records] == [("completed", 1)] * 2
        assert failures == 0


async def test_no_scheduler_keeps_a_worker_from_its_work_for_long() -> None:
    class Sleepy(Scheduler):
        async def whose(self, ticket: Ticket) -> Turn | None:
            return Turn(tenant="t", job_id=ticket.job_id, rest_s=20.0)

    async with cloud(turns=Sleepy()) as parts:
        await submit(parts, FIRST)
        began_s = parts.clock.monotonic_s()
        (record,) = await until_all_ended(parts, FIRST)
        assert record.status == "completed"
        assert 50.0 <= parts.clock.monotonic_s() - began_s <= 70.0


async def test_a_job_that_was_put_off_many_times_is_not_given_up_for_one_error() -> None:
    async with cloud(turns=Scheduler(*[FIRST] * 12)) as parts:
        await submit(parts, SECOND)
        queue, taken = await parts.queue(), 0
        while taken < 12:  # as other workers would put it off
            delivery = await queue.pull(timeout_s=0)
            if delivery is not None:
                await delivery.nak(0.0)
                taken += 1
            await parts.clock.advance(0.01)
        (record,) = await until_all_ended(parts, SECOND)
        assert record.status == "completed"


async def test_a_drain_gives_a_job_back_that_was_begun_out_of_turn() -> None:
    async with cloud(turns=Scheduler(SECOND)) as parts:
        parts.runner.go.clear()
        await submit(parts, FIRST, SECOND)
        await parts.until(lambda: started(parts, 1), tick_s=0.2)
        draining = asyncio.get_running_loop().create_task(parts.worker.drain(grace_s=4.0))
        await parts.until(lambda: done(draining), tick_s=0.5)
        record = await parts.jobs.find("t", SECOND)
        assert (record.status, record.attempts, record.worker_id) == ("queued", 0, "")
        depth = await (await parts.queue()).depth()
        assert depth.pending + depth.in_flight == 2  # both messages are still there


@pytest.mark.parametrize("due", [(), (SECOND,)], ids=["in order", "out of order"])
@pytest.mark.parametrize(
    ("decided", "told", "made", "why"),
    [
        ("reduced", ToldSteps(8), "cloud", "there was time for 8 steps"),
        ("cloud", ToldSteps(2), "reduced", "would have been too late when its turn came"),
        ("cloud", ToldSteps(2, others_wait=True), "reduced", "others waited for long when its turn came"),
    ],
)
async def test_a_job_has_the_steps_that_are_told_with_its_turn(
    decided: str, told: ToldSteps, made: str, why: str, due: tuple[str, ...]
) -> None:
    async with cloud(turns=Scheduler(*due, told=told)) as parts:
        for job_id in (FIRST, SECOND):
            spec = make_spec(job_id=job_id, plan=decided)
            changes = {"decision": spec.decision.model_copy(update={"refine_t0": None})}
            await parts.jobs.submit(spec.model_copy(update={**changes, "content_key": job_id[-1] * 64}))
        records = await until_all_ended(parts, FIRST, SECOND)
        assert [(record.plan, record.final_steps) for record in records] == [(made, told.steps)] * 2
        assert all(why in record.notes[-1] for record in records)
        whole = [await parts.jobs.content("t", key * 64) is not None for key in "12"]
        assert whole == [made != "reduced"] * 2  # repeats do not find what has fewer steps
