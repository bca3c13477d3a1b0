"""`adaptivegen admin decisions` and `explain` of what is no job, or no longer one, against a whole scheduler."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from adaptivegen.jobs.removal import remove
from adaptivegen.placement import refusal_of
from tests.integration.test_admin import invoke
from tests.schedulers import fleet, job_store, new_spec, scheduler, until
from tests.servers import NatsServer
from tests.unit.scheduler.builders import query, report

REFUSED_ID = "vid_" + "9" * 26


async def test_the_last_decisions_are_listed_and_what_was_refused_can_be_explained(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    async with (
        scheduler(own_nats.url, tmp_path) as running,
        fleet(own_nats.url, report("edge-1"), report("worker-1")),
    ):
        await running.sees(edge_1="healthy", worker_1="healthy")
        placed = await running.place(query(tenant="acme"))
        refused = await running.place(query(tenant="other", job_id=REFUSED_ID, tier="priority"))
        error = refusal_of(refused)
        assert error is not None and REFUSED_ID in error.message  # so a client knows what to ask about

        async def rows(*arguments: str) -> list[tuple[str, str, str]]:
            said = await asyncio.to_thread(invoke, running, "decisions", "--json", *arguments)
            return [(one["job_id"], one["tenant"], one["plan"]) for one in json.loads(said.stdout)["decisions"]]

        first, second = (REFUSED_ID, "other", "refuse"), (placed.job_id, "acme", placed.plan)
        assert await rows() == [first, second]
        assert await rows("--limit", "1") == [first]
        assert await rows("--tenant", "acme") == [second]
        assert await rows("--tenant", "nobody") == []
        assert (await asyncio.to_thread(invoke, running, "decisions", "--tenant", "no tenant!")).exit_code == 2
        table = (await asyncio.to_thread(invoke, running, "decisions")).stdout
        assert [line.split()[4] for line in table.splitlines() if "vid_" in line] == ["refuse", placed.plan]
        assert refused.reasons[0] in table

        for more in ([], ["--tenant", "other"]):
            explained = await asyncio.to_thread(invoke, running, "explain", REFUSED_ID, *more)
            assert explained.exit_code == 0
            assert f"{REFUSED_ID} of tenant other: refused" in explained.stdout
            assert refused.reasons[0] in " ".join(explained.stdout.split())
        assert (await asyncio.to_thread(invoke, running, "explain", REFUSED_ID, "--tenant", "acme")).exit_code == 7
        own_nats.kill()

        async def away() -> bool | None:
            return True if (await asyncio.to_thread(invoke, running, "jobs")).exit_code == 3 else None

        await until("the broker being away", away)
        assert (await asyncio.to_thread(invoke, running, "explain", REFUSED_ID)).exit_code == 0


@pytest.mark.parametrize("said", [(), ("--tenant", "t")])
async def test_a_deleted_video_is_said_to_be_deleted_whether_its_tenant_is_named_or_not(
    own_nats: NatsServer, tmp_path: Path, said: tuple[str, ...]
) -> None:
    async with (
        scheduler(own_nats.url, tmp_path) as running,
        fleet(own_nats.url, report("edge-1"), report("worker-1")),
        job_store(own_nats.url, tmp_path) as jobs,
    ):
        spec = new_spec()
        await running.sees(edge_1="healthy", worker_1="healthy")
        asked = query(job_id=spec.id, tenant=spec.tenant, tier="priority")
        assert (await running.place(asked)).plan == "refuse"  # at first, and then it was taken
        await jobs.submit(spec)
        await remove(jobs, spec.tenant, spec.id)
        named = tuple(spec.tenant if word == "t" else word for word in said)
        explained = await asyncio.to_thread(invoke, running, "explain", spec.id, *named)
        assert (explained.exit_code, f"video '{spec.id}' was deleted" in explained.stderr) == (7, True)
        unknown = await asyncio.to_thread(invoke, running, "explain", "vid_" + "8" * 26, *named)
        assert unknown.exit_code == 7 and "was deleted" not in unknown.stderr
