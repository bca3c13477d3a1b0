"""Event streams of an edge: snapshots, resuming, slow and silent streams, other nodes' events, draining."""

import asyncio
from contextlib import aclosing

import pytest

from adaptivegen.errors import BrokerUnavailable, NotFound, StorageFailure
from adaptivegen.jobs.events import JobEvent, make_event, terminal_event
from adaptivegen.jobs.record import JobRecord
from edge_node.hub import HISTORY, LINGER_S, WATCHER_BUFFER, Topic, Watcher
from tests.jobs import JOB_ID, draft_manifest, make_spec, media
from tests.unit.edge.watching import DONE, DRAFT_ONLY, SOON_S, Desk, event, running, take, turns


async def test_a_new_stream_begins_with_the_record_and_follows_both_nodes() -> None:
    async with running() as desk, aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
        (first,) = await take(stream, 1)
        assert (first.type, first.record.status) == ("snapshot", "queued")
        await desk.tell(event(1))
        await desk.hub.publish(event(2, "draft.started", producer="edge-1"))
        await desk.tell(await desk.end(3))
        assert [happened.id for happened in await take(stream, 3)] == ["1-w1", "2-edge-1", "3-w1"]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_the_copy_of_an_own_event_that_comes_back_is_not_told_twice() -> None:
    async with running() as desk, aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
        await take(stream, 1)
        await desk.hub.publish(event(1, producer="edge-1"))
        await desk.tell(event(1, producer="edge-1"))
        await desk.tell(event(2))
        assert [happened.id for happened in await take(stream, 2)] == ["1-edge-1", "2-w1"]


async def test_a_stream_resumes_after_the_last_event_seen() -> None:
    async with running() as desk:
        async with aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
            await take(stream, 1)
            await desk.tell(event(1))
            (last,) = await take(stream, 1)
        await desk.tell(event(2))
        await desk.tell(await desk.end(3))
        async with aclosing(desk.hub.stream("t", JOB_ID, after=last.id)) as stream:
            assert [happened.id for happened in await take(stream, 2)] == ["2-w1", "3-w1"]
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


async def test_resuming_after_an_event_that_is_not_known_here_begins_with_a_snapshot() -> None:
    async with running() as desk, aclosing(desk.hub.stream("t", JOB_ID, after="77-elsewhere")) as stream:
        assert (await take(stream, 1))[0].type == "snapshot"


async def test_a_job_that_has_ended_is_told_at_once() -> None:
    async with running() as desk:
        await desk.jobs.finish(DONE)
        async with aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
            assert [happened.type for happened in await take(stream, 2)] == ["snapshot", "completed"]
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


async def test_an_end_whose_event_was_lost_is_read_from_the_record() -> None:
    async with running(look_again_s=SOON_S) as desk, aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
        await take(stream, 1)
        assert await anext(stream) is None  # silence is told, so that a server can keep the connection alive
        await desk.jobs.finish(DONE)
        (last,) = await take(stream, 1)
        assert (last.type, last.record.final) == ("completed", media())


async def test_a_job_of_another_tenant_is_not_found() -> None:
    async with running() as desk, aclosing(desk.hub.stream("u", JOB_ID, after=None)) as stream:
        with pytest.raises(NotFound):
            await anext(stream)


async def test_draining_ends_open_streams_without_an_end_of_the_job() -> None:
    async with running() as desk, aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
        await take(stream, 1)
        waiting = asyncio.get_running_loop().create_task(anext(stream, None))
        await asyncio.sleep(0)
        desk.hub.close()
        assert await waiting is None
        assert await anext(stream, None) is None


async def test_garbage_on_the_subject_does_not_end_a_stream() -> None:
    async with running() as desk, aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
        await take(stream, 1)
        await desk.bus.publish(f"ag.events.t.{JOB_ID}", b"\xff{")
        await desk.tell(event(1))
        assert (await take(stream, 1))[0].id == "1-w1"


async def test_an_unwatched_topic_is_let_go_and_its_subscription_with_it() -> None:
    async with running() as desk:
        async with aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
            await take(stream, 1)
            await desk.tell(event(1))
            await take(stream, 1)
            await desk.clock.advance(3 * LINGER_S)  # watched: stays
            await desk.tell(event(2))
            assert (await take(stream, 1))[0].id == "2-w1"
        await desk.clock.advance(2 * LINGER_S)
        async with aclosing(desk.hub.stream("t", JOB_ID, after="1-w1")) as stream:
            assert (await take(stream, 1))[0].type == "snapshot"


async def test_without_a_broker_the_events_of_this_edge_are_still_told() -> None:
    async with running() as desk:

        async def away(*_: object, **__: object) -> None:
            raise BrokerUnavailable("away")

        class NoBroker:
            kv = staticmethod(desk.bus.kv)
            subscribe = staticmethod(away)
            publish = staticmethod(away)

        desk.jobs.bus = NoBroker()  # type: ignore[assignment]
        async with aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
            await take(stream, 1)
            await desk.hub.publish(event(1, producer="edge-1"))
            assert (await take(stream, 1))[0].id == "1-edge-1"


async def test_a_slow_reader_loses_the_oldest_and_gets_the_end() -> None:
    watcher = Watcher()
    for number in range(3 * WATCHER_BUFFER):
        watcher.offer(event(number))
    watcher.offer(event(10_000, "completed"))
    found = [await watcher.next(timeout_s=0) for _ in range(WATCHER_BUFFER)]
    assert found[-1] is not None and found[-1].type == "completed"
    assert found[0] is not None and found[0].id == f"{2 * WATCHER_BUFFER + 1}-w1"
    assert await watcher.next(timeout_s=0) is None


def test_the_history_of_a_topic_is_bounded() -> None:
    topic = Topic()
    for number in range(2 * HISTORY):
        topic.add(event(number))
    assert len(topic.history) == HISTORY
    assert topic.after("0-w1") is None
    assert [happened.id for happened in topic.after(f"{2 * HISTORY - 2}-w1") or []] == [f"{2 * HISTORY - 1}-w1"]


# ---- a draft-only video that was completed, and then upgraded under the same id


async def upgraded(desk: Desk) -> JobEvent:
    """Complete the job as a draft, tell its end, then ask for its final. Returns the draft's terminal event."""
    record = await desk.jobs.store_draft("t", DRAFT_ONLY, draft_manifest())
    ended = terminal_event(record, producer="edge-1", now_ns=50)
    await desk.hub.publish(ended)
    spec = await desk.jobs.spec("t", DRAFT_ONLY)
    queued = await desk.jobs.ask_final(spec)
    assert queued.status == "queued"
    await desk.hub.publish(make_event("queued", queued, producer="edge-1", now_ns=60))
    return ended


async def finished(desk: Desk) -> None:
    record, _ = await desk.jobs.finish(DONE.model_copy(update={"id": DRAFT_ONLY}))
    await desk.jobs.announce(terminal_event(record, producer="w1", now_ns=70))


async def draft_only(desk: Desk) -> str:
    """A draft-only job with one event told; returns the event's id."""
    await desk.jobs.submit(make_spec(job_id=DRAFT_ONLY, plan="draft", want_final=False))
    await desk.hub.open("t", DRAFT_ONLY)
    started = make_event("draft.started", await desk.jobs.find("t", DRAFT_ONLY), producer="edge-1", now_ns=40)
    await desk.hub.publish(started)
    return started.id


@pytest.mark.parametrize("resumes", ["before the draft's end", "at the draft's end", "without an id"])
async def test_a_stream_opened_after_an_upgrade_goes_on_to_the_final(resumes: str) -> None:
    async with running() as desk:
        started_id = await draft_only(desk)
        ended = await upgraded(desk)
        after = {"before the draft's end": started_id, "at the draft's end": ended.id}.get(resumes)
        async with aclosing(desk.hub.stream("t", DRAFT_ONLY, after=after)) as stream:
            first, *_ = await take(stream, 1)
            assert (first.type, first.record.status) == ("queued" if after else "snapshot", "queued")
            await finished(desk)
            (last,) = await take(stream, 1)
            assert (last.type, last.record.final) == ("completed", media())
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


async def test_resuming_across_draft_upgrade_and_final_ends_with_the_final_alone() -> None:
    async with running() as desk:
        started_id = await draft_only(desk)
        await upgraded(desk)
        await finished(desk)
        await turns()
        async with aclosing(desk.hub.stream("t", DRAFT_ONLY, after=started_id)) as stream:
            told = [happened.type async for happened in stream if happened is not None]
        assert told == ["queued", "completed"]


async def test_a_stream_that_is_open_while_its_draft_is_upgraded_follows_on() -> None:
    async with running() as desk:
        await draft_only(desk)
        async with aclosing(desk.hub.stream("t", DRAFT_ONLY, after=None)) as stream:
            await take(stream, 1)
            await upgraded(desk)
            await finished(desk)
            assert [happened.type for happened in await take(stream, 2)] == ["queued", "completed"]


async def test_resuming_at_the_end_of_an_ended_job_tells_its_end_at_once() -> None:
    async with running() as desk:
        await desk.hub.open("t", JOB_ID)
        record, _ = await desk.jobs.finish(DONE)
        ended = terminal_event(record, producer="w1", now_ns=5)
        await desk.hub.publish(ended)
        async with aclosing(desk.hub.stream("t", JOB_ID, after=ended.id)) as stream:
            assert [happened.type async for happened in stream if happened is not None] == ["completed"]


async def test_a_record_that_cannot_be_read_for_a_while_does_not_end_a_stream() -> None:
    async with running(look_again_s=SOON_S) as desk, aclosing(desk.hub.stream("t", JOB_ID, after=None)) as stream:
        await take(stream, 1)
        found = desk.jobs.find

        async def away(tenant: str, job_id: str) -> JobRecord:
            raise StorageFailure("away")

        desk.jobs.find = away  # type: ignore[method-assign]
        assert await anext(stream) is None
        record, _ = await desk.jobs.finish(DONE)
        await desk.hub.publish(terminal_event(record, producer="w1", now_ns=5))
        assert await anext(stream) is None
        desk.jobs.find = found  # type: ignore[method-assign]
        (last,) = await take(stream, 1)
        assert last.type == "completed"
