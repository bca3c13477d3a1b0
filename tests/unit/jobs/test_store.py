"""The job store on memory parts: submission, reading, changing, and the one outcome that wins."""

import asyncio
from typing import Any

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import (
    BrokerUnavailable,
    Conflict,
    InternalError,
    NotFound,
    PreconditionFailed,
    StorageFull,
    Unavailable,
)
from adaptivegen.jobs.index import CAS_ATTEMPTS
from adaptivegen.jobs.record import JobRecord, claim, renew
from adaptivegen.jobs.spec import ContentEntry, JobSpec, Manifest
from adaptivegen.jobs.store import IDEMPOTENCY_TTL_S, JobMessage, JobStore
from tests.jobs import JOB_ID, draft_manifest, make_spec, media

NO_TIME = 0.0


class Parts:
    """A job store and what it stands on."""

    def __init__(self, *, max_queued: int = 100) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus(self.clock, max_queued=max_queued)
        self.blob = open_store("memory://")
        self.jobs = JobStore(blob=self.blob, bus=self.bus, clock=self.clock)

    async def queued(self) -> int:
        return (await (await self.bus.work_queue("default", ack_wait_s=30)).depth()).pending

    async def keys(self, prefix: str = "") -> list[str]:
        return sorted([meta.key async for meta in self.blob.list(prefix)])

    async def claim(self) -> JobRecord:
        now_ns = self.clock.now_ns()
        return await self.jobs.change("t", JOB_ID, lambda r: claim(r, worker_id="w1", now_ns=now_ns, lease_s=30))


@pytest.fixture
def parts() -> Parts:
    return Parts()


def done(letter: str = "a", *, epoch: int = 1, outcome: Any = "completed") -> Manifest:
    final = media(letter) if outcome == "completed" else None
    return Manifest(id=JOB_ID, tenant="t", outcome=outcome, epoch=epoch, finished_at_ns=2_000_000_000, final=final)


class Wrapped:
    """Another object, with some of its methods replaced."""

    def __init__(self, inner: object, **methods: Any) -> None:
        self._inner = inner
        self.__dict__.update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


# ---- submission ---------------------------------------------------------------------------------------------------


async def test_a_submitted_job_is_durable_indexed_and_queued_with_its_trace(parts: Parts) -> None:
    spec = make_spec().model_copy(update={"trace": {"traceparent": "00-1-2-01"}})
    _, record = await parts.jobs.submit(spec)
    assert await parts.keys() == [f"jobs/t/{JOB_ID}/spec", f"pending/t.{JOB_ID}"]
    assert await parts.jobs.find("t", JOB_ID) == record
    delivery = await (await parts.bus.work_queue("default", ack_wait_s=30)).pull(timeout_s=NO_TIME)
    assert delivery is not None
    assert JobMessage.decode(delivery.data) == JobMessage(tenant="t", id=JOB_ID)
    assert delivery.headers == {"traceparent": "00-1-2-01"}


async def test_a_draft_only_job_is_not_queued(parts: Parts) -> None:
    await parts.jobs.submit(make_spec(plan="draft", want_final=False))
    assert await parts.queued() == 0


async def test_submitting_again_after_a_lost_answer_queues_one_message(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())
    await parts.jobs.submit(make_spec())
    assert await parts.queued() == 1


async def test_writes_come_in_the_order_that_loses_no_accepted_job(parts: Parts) -> None:
    written: list[str] = []

    async def put(key: str, data: bytes) -> None:
        assert await parts.bus.kv("jobs") is not None
        assert await (await parts.bus.kv("jobs")).keys() == []
        assert await parts.queued() == 0
        written.append(key)
        await parts.blob.put(key, data)

    async def put_if_absent(key: str, data: bytes) -> bool:
        await put(key, data)
        return True

    parts.jobs.blob = Wrapped(parts.blob, put=put, put_if_absent=put_if_absent)
    await parts.jobs.submit(make_spec())
    assert written == [f"pending/t.{JOB_ID}", f"jobs/t/{JOB_ID}/spec"]


async def test_a_full_store_refuses_the_submission_and_nothing_is_indexed_or_queued(parts: Parts) -> None:
    async def put(key: str, data: bytes) -> None:
        raise StorageFull("no space left")

    parts.jobs.blob = Wrapped(parts.blob, put=put)
    with pytest.raises(StorageFull):
        await parts.jobs.submit(make_spec())
    assert await parts.jobs.index.ids("t") == []
    assert await parts.queued() == 0
    with pytest.raises(NotFound):
        await parts.jobs.find("t", JOB_ID)


# ---- idempotency keys ---------------------------------------------------------------------------------------------


async def reserve(parts: Parts, job_id: str, *, key: str = "k/1 ü", body: str = "b1", tenant: str = "t") -> str:
    return await parts.jobs.reserve(tenant=tenant, key=key, job_id=job_id, body_digest=body)


async def test_a_key_names_the_first_job_for_the_same_body(parts: Parts) -> None:
    assert await reserve(parts, "vid_1") == "vid_1"
    assert await reserve(parts, "vid_2") == "vid_1"


async def test_a_key_with_another_body_is_a_conflict(parts: Parts) -> None:
    await reserve(parts, "vid_1")
    with pytest.raises(Conflict, match="another body"):
        await reserve(parts, "vid_2", body="b2")


async def test_tenants_do_not_share_keys_and_keys_end_after_a_day(parts: Parts) -> None:
    await reserve(parts, "vid_1")
    assert await reserve(parts, "vid_2", tenant="u") == "vid_2"
    await parts.clock.advance(IDEMPOTENCY_TTL_S)
    assert await reserve(parts, "vid_3", body="b2") == "vid_3"


async def test_of_many_at_once_one_wins_and_all_are_told(parts: Parts) -> None:
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(reserve(parts, f"vid_{n}")) for n in range(20)]
    assert len({task.result() for task in asked}) == 1


# ---- reading ------------------------------------------------------------------------------------------------------


async def test_a_record_the_index_lost_is_rebuilt_and_indexed_again(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())
    await parts.jobs.store_draft("t", JOB_ID, draft_manifest())
    await parts.jobs.finish(done())
    bucket = await parts.bus.kv("jobs")
    await bucket.delete(f"t.{JOB_ID}")
    record = await parts.jobs.find("t", JOB_ID)
    assert (record.status, record.final, record.draft) == ("completed", media("a"), draft_manifest().media)
    assert await bucket.get(f"t.{JOB_ID}") is not None


async def test_without_a_broker_the_record_comes_from_the_store(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())

    async def kv(*_: object, **__: object) -> None:
        raise BrokerUnavailable("away")

    parts.jobs.bus = Wrapped(parts.bus, kv=kv)
    assert (await parts.jobs.find("t", JOB_ID)).status == "queued"


async def test_another_tenants_job_is_not_found(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())
    with pytest.raises(NotFound):
        await parts.jobs.find("u", JOB_ID)


async def test_a_damaged_object_is_named_and_not_taken_for_missing(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())
    await parts.blob.put(f"jobs/t/{JOB_ID}/manifest", b'{"id": ')
    with pytest.raises(InternalError, match="manifest is not a Manifest"):
        await parts.jobs.manifest("t", JOB_ID)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b'{"tenant": "t"}', b"null", b'"x"'])
def test_a_message_that_names_no_job_is_refused(data: bytes) -> None:
    with pytest.raises(InternalError):
        JobMessage.decode(data)


# ---- changing -----------------------------------------------------------------------------------------------------


async def test_changes_at_once_are_all_made(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())

    def noted(number: int) -> Any:
        return lambda r: r.model_copy(update={"notes": (*r.notes, str(number))})

    async with asyncio.TaskGroup() as group:
        for number in range(CAS_ATTEMPTS):
            group.create_task(parts.jobs.change("t", JOB_ID, noted(number)))
    notes = (await parts.jobs.find("t", JOB_ID)).notes
    assert sorted(notes, key=int) == [str(number) for number in range(CAS_ATTEMPTS)]


@pytest.mark.parametrize(("losses", "made"), [(CAS_ATTEMPTS - 1, True), (CAS_ATTEMPTS, False)])
async def test_a_change_that_loses_is_tried_again_so_often_and_no_more(parts: Parts, losses: int, made: bool) -> None:
    await parts.jobs.submit(make_spec())
    bucket = await parts.bus.kv("jobs")
    left = losses

    async def update(key: str, value: bytes, *, revision: int) -> int:
        nonlocal left
        if left:
            left -= 1
            raise PreconditionFailed("someone else wrote first")
        return await bucket.update(key, value, revision=revision)

    async def kv(*_: object, **__: object) -> Any:
        return Wrapped(bucket, update=update)

    parts.jobs.bus = Wrapped(parts.bus, kv=kv)
    if made:
        assert (await parts.claim()).status == "in_progress"
    else:
        with pytest.raises(Unavailable, match=f"{CAS_ATTEMPTS} times"):
            await parts.claim()
        assert (await parts.jobs.find("t", JOB_ID)).status == "queued"


async def test_a_step_that_changes_nothing_writes_nothing(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())
    bucket = await parts.bus.kv("jobs")
    before = await bucket.get(f"t.{JOB_ID}")
    await parts.jobs.change("t", JOB_ID, lambda r: r)
    assert await bucket.get(f"t.{JOB_ID}") == before


async def test_a_fenced_off_writer_is_told_and_nothing_is_written(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())
    await parts.claim()
    record = await parts.claim()
    with pytest.raises(PreconditionFailed):
        await parts.jobs.change(
            "t",
            JOB_ID,
            lambda r: renew(r, epoch=1, worker_id="w1", now_ns=9, lease_s=1, progress_percent=50, eta_s=1.0),
        )
    assert await parts.jobs.find("t", JOB_ID) == record


# ---- outcomes -----------------------------------------------------------------------------------------------------


async def test_the_second_manifest_loses_and_the_record_tells_the_first(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())
    assert (await parts.jobs.finish(done("a")))[1]
    record, won = await parts.jobs.finish(done("b", epoch=2))
    assert not won
    assert record.final == media("a") == (await parts.jobs.find("t", JOB_ID)).final
    assert await parts.keys("pending/") == []


async def test_the_same_manifest_again_is_a_win_since_only_the_answer_was_lost(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())
    await parts.jobs.finish(done())
    assert (await parts.jobs.finish(done()))[1]


async def test_of_racing_outcomes_exactly_one_wins_and_all_agree(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())
    outcomes = [done("abcdef"[n % 6], epoch=n) for n in range(6)] + [done(epoch=9, outcome="cancelled")]
    async with asyncio.TaskGroup() as group:
        racing = [group.create_task(parts.jobs.finish(manifest)) for manifest in outcomes]
    assert sum(task.result()[1] for task in racing) == 1
    manifest = await parts.jobs.manifest("t", JOB_ID)
    assert manifest is not None
    assert {task.result()[0].final for task in racing} == {manifest.final}


async def test_cancelling_ends_the_job_hints_its_worker_and_may_be_repeated(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())
    hints = await parts.bus.subscribe("ag.cancel.*")
    assert (await parts.jobs.cancel("t", JOB_ID)).status == "cancelled"
    assert (await parts.jobs.cancel("t", JOB_ID)).status == "cancelled"
    assert (await hints.__aiter__().__anext__()).data == JOB_ID.encode()
    assert await parts.keys("pending/") == []


async def test_a_cancel_that_races_a_commit_is_a_conflict_when_the_commit_was_first(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())
    await parts.blob.put(f"jobs/t/{JOB_ID}/manifest", done().encode())  # committed, not indexed yet
    with pytest.raises(Conflict, match="completed"):
        await parts.jobs.cancel("t", JOB_ID)
    assert (await parts.jobs.find("t", JOB_ID)).status == "completed"


async def test_an_outcome_says_the_same_whether_read_from_the_index_or_the_store(parts: Parts) -> None:
    await parts.jobs.submit(make_spec())
    await parts.jobs.store_draft("t", JOB_ID, draft_manifest())
    record, _ = await parts.jobs.finish(done())
    assert await parts.jobs.from_store("t", JOB_ID) == record


# ---- finals asked for later, hits ----------------------------------------------------------------------------------


async def drafted(parts: Parts) -> JobSpec:
    spec = make_spec(plan="draft", want_final=False)
    await parts.jobs.submit(spec)
    await parts.jobs.store_draft("t", JOB_ID, draft_manifest())
    return make_spec(plan="refine")


async def test_the_final_of_a_draft_is_queued_once_however_often_it_is_asked_for(parts: Parts) -> None:
    upgraded = await drafted(parts)
    record = await parts.jobs.ask_final(upgraded)
    again = await parts.jobs.ask_final(upgraded)
    assert (record.status, record.want_final, record.plan) == ("queued", True, "refine")
    assert again == record
    assert await parts.queued() == 1
    assert await parts.keys("pending/") == [f"pending/t.{JOB_ID}"]
    assert (await parts.jobs.spec("t", JOB_ID)).decision.plan == "refine"
    assert (await parts.jobs.from_store("t", JOB_ID)).status == "queued"


async def test_a_cancelled_draft_has_no_final_and_the_refusal_writes_nothing(parts: Parts) -> None:
    await parts.jobs.submit(make_spec(plan="draft", want_final=False))
    await parts.jobs.cancel("t", JOB_ID)
    before = await parts.keys()
    with pytest.raises(Conflict, match="only a draft"):
        await parts.jobs.ask_final(make_spec())
    assert await parts.keys() == before
    assert await parts.queued() == 0


async def test_a_hit_is_complete_from_the_start_and_queues_nothing(parts: Parts) -> None:
    record = await parts.jobs.record_hit(make_spec(plan="hit"), draft_manifest(), done(epoch=0))
    assert (record.status, record.final, record.draft) == ("completed", media("a"), draft_manifest().media)
    assert await parts.queued() == 0
    assert await parts.keys("pending/") == []
    assert await parts.jobs.from_store("t", JOB_ID) == record


async def test_the_first_final_of_a_content_key_stays(parts: Parts) -> None:
    for letter in "ab":
        entry = ContentEntry(id=JOB_ID, final=media(letter), draft=None, final_steps=4, draft_steps=4)
        await parts.jobs.index_content(make_spec(), entry)
    found = await parts.jobs.content("t", "c" * 64)
    assert found is not None and found.final == media("a")
    assert await parts.jobs.content("u", "c" * 64) is None
