"""Which videos an operator's purge means, batch by batch, and what it counts."""

import asyncio
import random
from typing import Any

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.errors import InvalidRequest, NotFound, Unavailable
from adaptivegen.ids import made_at_ns, new_video_id
from adaptivegen.jobs import sharing
from adaptivegen.jobs.index import COMPLETE
from adaptivegen.jobs.purges import SUBJECT, Purge, decode_purge, tell
from adaptivegen.jobs.spec import Manifest, Media, input_key, media_key
from adaptivegen.jobs.store import JOBS_BUCKET, JobStore
from adaptivegen.rpc.admin_rows import Purged, PurgeOrder
from scheduler.purge import MAX_IDS, Purger
from scheduler.surveys import StorageSurvey
from tests.jobs import make_spec
from tests.unit.scheduler.builders import cards, view

HOUR_S = 3600.0


class Made:
    """A store of finished videos, made an hour apart."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus(self.clock)
        self.jobs = JobStore(blob=open_store("memory://"), bus=self.bus, clock=self.clock)
        self.purger = Purger(self.jobs, cards, clock=self.clock)
        self.rng = random.Random(1)

    async def add(self, *, tenant: str = "t", model: str = "test-cloud", content_key: str = "c" * 64) -> str:
        job_id = new_video_id(now_ns=self.clock.now_ns(), rng=self.rng)
        spec = make_spec(job_id=job_id, tenant=tenant).model_copy(update={"content_key": content_key})
        await self.jobs.submit(spec)
        sha256 = f"{self.rng.getrandbits(256):064x}"
        key = media_key(tenant, job_id, 1, sha256)
        await self.jobs.blob.put(key, b"ten bytes.")
        final = Media(key=key, sha256=sha256, size_bytes=10, width=8, height=8, frames=1, fps=1)
        manifest = Manifest(
            id=job_id, tenant=tenant, outcome="completed", epoch=1, finished_at_ns=2, final=final, made_with=model
        )
        await self.jobs.finish(manifest)
        await self.clock.advance(HOUR_S)
        return job_id

    async def run(self, kind: Any = "videos", **order: Any) -> Purged:
        return await self.purger.run(self.purger.check(PurgeOrder(**order)), kind, by="op")

    async def there(self) -> list[str]:
        return [job_id for _, job_id in await self.jobs.index.tenants_and_ids()]


@pytest.fixture
async def made() -> Made:
    found = Made()
    await sharing.note_repeats(found.jobs)
    await found.jobs.index.set_complete()
    return found


@pytest.mark.parametrize("kind", ["videos", "caches"])
async def test_nothing_is_purged_while_not_every_video_is_listed(kind: str) -> None:
    made = Made()
    one = await made.add()
    for order in ({"tenant": "t"}, {"ids": (one,)}, {"tenant": "t", "dry_run": True}):
        with pytest.raises(Unavailable, match="try again") as refused:
            await made.run(kind, **order)
        assert refused.value.retry_after_s
    assert await made.there() == [one]


async def test_a_list_that_the_broker_lost_while_it_was_read_is_not_purged_by(made: Made) -> None:
    ids = [await made.add(), await made.add()]
    listed = made.jobs.index.ids

    async def losing(tenant: str) -> list[str]:
        jobs = await made.bus.kv(JOBS_BUCKET)
        await jobs.delete(COMPLETE)  # it went with the rest, of which one was listed again
        return (await listed(tenant))[:1]

    made.jobs.index.ids = losing  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await made.run(tenant="t")
    assert await made.there() == ids


async def test_a_dry_run_counts_uploads_as_what_is_freed_does(made: Made) -> None:
    job_id = await made.add()
    await made.jobs.blob.put(input_key("t", job_id, "e" * 64, now_ns=made.clock.now_ns()), b"upload")
    assert (await made.run("caches", dry_run=True, tenant="t")).bytes == 10
    assert [(await made.run(dry_run=dry_run, tenant="t")).bytes for dry_run in (True, False)] == [16, 16]


async def test_a_version_is_what_made_the_clips_that_are_there(made: Made) -> None:
    finished = await made.add()
    spec = make_spec(job_id=new_video_id(now_ns=made.clock.now_ns(), rng=made.rng), tenant="t")
    await made.jobs.submit(spec)  # open: nothing is there yet
    for model, videos in ((spec.draft_model, 0), (spec.cloud_model, 1 if spec.cloud_model == "test-cloud" else 0)):
        assert (await made.run(dry_run=True, model=model)).videos == videos
    assert await made.there() == [finished, spec.id]


async def test_only_videos_of_which_all_that_is_said_holds_are_deleted(made: Made) -> None:
    old = await made.add()
    other = await made.add(tenant="u")
    tried = await made.add(model="test-tried")
    keyed = await made.add(content_key="d" * 64)
    new = await made.add()
    assert await made.run(dry_run=True, tenant="t") == Purged(4, 4, 40, 0, "")
    assert (await made.run(tenant="t", content_key="d" * 64)).videos == 1
    assert await made.there() == [old, other, tried, new]
    assert (await made.run(model="test-tried")).videos == 1
    assert (await made.run(tenant="t", older_than_s=4.5 * HOUR_S)).videos == 1
    assert await made.there() == [other, new]
    assert await made.run(ids=(other, new), tenant="u") == Purged(1, 1, 10, 0, "")
    with pytest.raises(NotFound):
        await made.jobs.find("u", other)
    stone = await made.jobs.tombstone("u", other)
    assert stone is not None and stone.by == "op"
    assert await made.there() == [new]
    assert keyed not in await made.there()


async def test_a_model_is_meant_by_its_digest_too(made: Made) -> None:
    name, card = next(iter(cards().items()))
    await made.add(model=name)
    await made.add(model="another")
    assert (await made.run(dry_run=True, model=card.digest)).videos == 1
    with pytest.raises(InvalidRequest, match="digest"):
        await made.run(model="0" * 64)


async def test_batches_go_on_where_the_one_before_ended_and_a_dry_run_changes_nothing(made: Made) -> None:
    ids = [await made.add() for _ in range(5)]
    for dry_run in (True, False):
        sizes, after = [], ""
        while True:
            done = await made.run(tenant="t", limit=2, after=after, dry_run=dry_run)
            sizes.append((done.videos, done.bytes))
            if not done.next:
                break
            after = done.next
        assert sizes == [(2, 20), (2, 20), (1, 10)]
        assert await made.there() == (ids if dry_run else [])


async def test_caches_are_told_what_to_let_go_of_and_videos_stay(made: Made) -> None:
    ids = [await made.add(), await made.add(tenant="u")]
    heard = aiter(await made.bus.subscribe(SUBJECT))
    assert await made.run("caches", ids=tuple(ids)) == Purged(2, 2, 20, 0, "")
    told = [decode_purge((await anext(heard)).data) for _ in range(2)]
    assert [(purge.tenant, purge.videos, purge.deleted) for purge in told] == [
        ("t", (ids[0],), False),
        ("u", (ids[1],), False),
    ]
    names = {meta.key.rpartition("-")[2] async for meta in made.jobs.blob.list("purged/")}
    assert names == {purge.sha256[0] for purge in told}
    assert await made.there() == ids


@pytest.mark.parametrize(
    ("order", "param"),
    [
        ({}, "ids"),
        ({"ids": ("nonsense",)}, "ids"),
        ({"ids": ("vid_01hzzzzzzzzzzzzzzzzzzzzzz0",) * (MAX_IDS + 1)}, "ids"),
        ({"tenant": "../x"}, "tenant"),
        ({"content_key": "x"}, "content_key"),
        ({"model": "A b"}, "model"),
        ({"older_than_s": -1.0}, "older_than_s"),
        ({"older_than_s": float("nan")}, "older_than_s"),
        ({"tenant": "t", "limit": 1001}, "limit"),
        ({"tenant": "t", "after": "x"}, "after"),
        ({"tenant": "t", "reason": "x" * 501}, "reason"),
    ],
)
async def test_an_order_that_says_nothing_or_nonsense_is_refused(order: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        Made().purger.check(PurgeOrder(**order))
    assert raised.value.param == param


async def test_what_is_freed_is_taken_off_what_a_tenant_has_stored_before_the_next_count() -> None:
    seen, clock = view(), ManualClock()
    bus, seen.stored.by_tenant = MemoryBus(clock), {"t": 30}
    before = seen.stored.revision
    async with asyncio.TaskGroup() as group:
        task = group.create_task(StorageSurvey(seen, open_store("memory://"), bus, clock=clock).listen())
        await asyncio.sleep(0)
        await tell(bus, Purge(tenant="t", deleted=True, freed_bytes=20))
        await tell(bus, Purge(tenant="u", deleted=True, freed_bytes=20))
        await tell(bus, Purge(tenant="t", deleted=True, freed_bytes=20))
        async with asyncio.timeout(10):
            while seen.stored.revision < before + 2:
                await asyncio.sleep(0.001)
        task.cancel()
    assert seen.stored.by_tenant == {"t": 0}


def test_an_id_tells_when_it_was_made() -> None:
    for now_ns in (0, 1_700_000_000_123_000_000, 2**48 * 1_000_000 - 1_000_000):
        assert made_at_ns(new_video_id(now_ns=now_ns, rng=random.Random(2))) == now_ns
