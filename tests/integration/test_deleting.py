"""Deleting and purging on real parts: broker, store, scheduler, edges, cache, worker's claims."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import Result

from adaptivegen.blob.store import open_store
from adaptivegen.clock import ManualClock
from adaptivegen.errors import NotFound, StorageFailure
from adaptivegen.jobs import sharing
from adaptivegen.jobs.removal import remove
from adaptivegen.jobs.spec import Deleted, job_key
from adaptivegen.jobs.store import JobStore
from adaptivegen.jobs.sweep import SETTLED_S, Sweep
from tests.integration import real_nodes
from tests.integration.centre import PROMPT, Centre, Ports, post, spooling_edge, when
from tests.integration.real_nodes import CLOCK, Node, broker, until
from tests.integration.test_admin import invoke
from tests.schedulers import Running
from tests.servers import NatsServer
from tests.unit.jobs.test_removal import A, B, keys, left_of, make, repeat


async def test_content_shared_by_a_repeat_survives_and_a_redelivered_job_stays_deleted(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    blob = open_store(f"file://{tmp_path / 'store'}")
    async with broker(own_nats.url) as bus:
        jobs = JobStore(blob=blob, bus=bus, clock=CLOCK)
        await sharing.note_repeats(jobs)
        spec = await make(jobs, A)
        assert await repeat(jobs, B)
        first, second = await asyncio.gather(remove(jobs, "t", A), remove(jobs, "t", A))  # two edges at once
        assert {first.freed_bytes, second.freed_bytes} <= {0, 6}  # the upload, which both may have seen
        final = (await jobs.find("t", B)).final
        assert final is not None and await blob.get(final.key) == b"a clip!"
        with pytest.raises(Deleted):
            await jobs.resume(spec)
        assert await jobs.index.ids("t") == [B]
        assert (await remove(jobs, "t", B)).freed_bytes == 14
        assert await keys(jobs, "out/") == []
        assert await jobs.index.ids("t") == []


async def test_a_removal_that_died_after_its_tombstone_is_completed_by_a_sweep_of_any_scheduler(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    blob = open_store(f"file://{tmp_path / 'store'}")
    async with broker(own_nats.url) as bus:
        jobs = JobStore(blob=blob, bus=bus, clock=CLOCK)
        await sharing.note_repeats(jobs)
        await make(jobs, A)
        delete = blob.delete

        async def dies(key: str) -> None:
            raise StorageFailure("the process died here")

        blob.delete = dies  # type: ignore[method-assign]
        with pytest.raises(StorageFailure):
            await remove(jobs, "t", A)
        blob.delete = delete  # type: ignore[method-assign]
        with pytest.raises(Deleted):
            await jobs.find("t", A)
        assert await blob.get(job_key("t", A, "manifest"))

        later = ManualClock()
        sweeps = [Sweep(jobs, clock=later) for _ in range(2)]
        for sweep in sweeps:
            await sweep.sweep()
        await later.advance(SETTLED_S)
        await asyncio.gather(*(sweep.sweep() for sweep in sweeps))  # at once
        assert await left_of(jobs, A) == []


def near(placing: Node, cache: Node) -> dict[str, Any]:
    """Settings of an edge that knows both."""
    return {"scheduler_addresses": placing.grpc, "cache_url": cache.http, "threads": 1}


async def test_a_deleted_video_gives_back_quota_at_once_and_caches_and_edges_let_go_of_it(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    centre = Centre(own_nats, tmp_path)
    async with (
        real_nodes.scheduler(own_nats.url, tmp_path, reconcile_interval_s=1.0) as placing,
        real_nodes.worker(own_nats.url, tmp_path, threads=1),
        real_nodes.cache(own_nats.url, tmp_path) as cache,
        spooling_edge(Ports(centre, "edge-1", **near(placing, cache))) as edge,
        spooling_edge(Ports(centre, "edge-2", **near(placing, cache))) as other,
        httpx.AsyncClient(base_url=edge.http, timeout=30) as http,
        httpx.AsyncClient(base_url=other.http, timeout=30) as elsewhere,
    ):
        running = Running(placing.grpc)

        async def admin(*arguments: str) -> Result:
            return await asyncio.to_thread(invoke, running, *arguments)

        video = await when(http, (await post(http))["id"], status="completed", final=True)
        repeated = await post(elsewhere)
        assert repeated["cached"], repeated
        spools = [tmp_path / f"spool-edge-{number}" / "known" for number in (1, 2)]

        async def kept() -> bool | None:
            return all(list(folder.glob("out/**/*.mp4")) for folder in spools) or None

        await until("both edges keeping the final", kept)
        location = (await http.get(f"/v1/videos/{video['id']}/content")).headers["location"]
        assert (await http.get(location)).status_code == 200
        assert (await admin("quota", "set", "local", "stored_bytes=1")).exit_code == 0

        async def counted() -> bool | None:  # a request before that would be a video more, and then a repeat for ever
            return any(tenant.stored for tenant in await running.admin.tenants()) or None

        await until("having stored too much", counted)
        refused = await http.post("/v1/videos", json={"prompt": PROMPT, "seed": 2})
        assert (refused.status_code, refused.json()["error"]["param"]) == (429, "stored_bytes")
        listed = (await http.get("/v1/videos", params={"limit": 100})).json()["data"]
        for one in listed:
            answer = await elsewhere.delete(f"/v1/videos/{one['id']}")
            said = {"id": one["id"], "object": "video.deleted", "deleted": True}
            assert (answer.status_code, answer.json()) == (200, said)
        assert (await http.get(f"/v1/videos/{video['id']}")).status_code == 404

        async def gone() -> bool | None:
            dropped = not any(list(folder.glob("out/**/*.mp4")) for folder in spools)
            return True if dropped and (await http.get(location)).status_code == 404 else None

        await until("caches and edges letting go", gone)

        async def accepted() -> Any:  # long before bytes are counted again
            answer = await http.post("/v1/videos", json={"prompt": PROMPT, "seed": 1})
            return answer if answer.status_code in (200, 202) else None

        assert not (await until("getting on", accepted)).json()["cached"]
        await running.close()


def answer(done: Result) -> Any:
    """What a command printed; the scheduler of this process logs meanwhile, a line each."""
    return json.loads(done.stdout[done.stdout.index("{\n") :])


async def test_an_operator_purges_caches_and_content_and_it_is_in_the_audit_log(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with (
        real_nodes.scheduler(own_nats.url, tmp_path) as placing,
        broker(own_nats.url) as bus,
    ):
        jobs = JobStore(blob=open_store(f"file://{tmp_path / 'store'}"), bus=bus, clock=CLOCK)
        running = Running(placing.grpc)

        async def purge(*arguments: str) -> Result:
            return await asyncio.to_thread(invoke, running, "purge", *arguments)

        await make(jobs, A)
        assert (await purge()).exit_code == 2
        assert (await purge("--tenant", "t", "--older-than", "soon")).exit_code == 2
        dry = await purge("--kind", "content", "--tenant", "t", "--dry-run", "--json")
        said = {"kind": "content", "dry_run": True, "examined": 1, "videos": 1, "bytes": 20, "failed": 0}
        assert answer(dry) == said
        cached = await purge("--tenant", "t", "--reason", "stale")
        assert cached.exit_code == 0 and "cache" in cached.stdout
        assert len(await keys(jobs, "purged/")) == 2
        assert (await jobs.find("t", A)).final is not None
        assert (await purge("--kind", "content", A)).exit_code == 1  # nobody says yes
        done = await purge("--kind", "content", A, "--yes", "--json")
        assert answer(done) == {**said, "dry_run": False}
        with pytest.raises(NotFound):
            await jobs.find("t", A)
        log = answer(await asyncio.to_thread(invoke, running, "audit", "--json"))["audit"]
        assert [(entry["action"], entry["target"]) for entry in log] == [
            ("purge-videos", "1 ids"),
            ("purge-caches", "t"),
        ]
        assert log[0]["outcome"] == "done: 1 videos, 20 bytes"
        assert log[1]["details"] == {"reason": "stale"}
        await running.close()
