"""An edge's parts together while one request falls into the spool and the centre is there again at once."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from adaptivegen.errors import StorageFailure
from edge_node.spool.drain import Drainer
from tests.unit.edge.bench import Edge, edge
from tests.unit.edge.cutting import partition

WRITE_S = 0.05  # that a write at the centre takes: a handover is about as long as a draft


@asynccontextmanager
async def after_a_blip(folder: Path) -> AsyncIterator[Edge]:
    """An edge whose next submission fails once, with its drainer running."""
    async with edge(folder) as made:
        held = partition(made)
        drainer = Drainer(
            spool=held.spool,
            reach=held.reach,
            centre=made.jobs,
            clock=made.clock,
            node_id="edge-1",
            again=made.videos.placing.again,
            rng=random.Random(3),
            drafting=made.desk.drafting,
            handed=made.videos.acceptor.handed,
            gone=made.videos.placing.gone,
            begin_draft=made.videos.acceptor.begin_draft,
        )
        blob: Any = made.jobs.blob
        put, put_if_absent, failures = blob.put, blob.put_if_absent, [StorageFailure("a blip")]

        async def once(key: str, data: bytes) -> bool:
            if key.endswith("/spec") and failures:
                raise failures.pop()
            return bool(await put_if_absent(key, data))

        async def slowly(key: str, data: bytes) -> None:
            await asyncio.sleep(WRITE_S)
            await put(key, data)

        blob.put_if_absent, blob.put = once, slowly
        draining = asyncio.get_running_loop().create_task(drainer.run())
        try:
            yield made
        finally:
            draining.cancel()
            await asyncio.wait({draining})


@pytest.mark.parametrize("plan", ["draft", "refine"])
@pytest.mark.parametrize("draft_s", [0.0, 0.02, 0.15])
async def test_a_job_that_fell_into_the_spool_for_a_moment_keeps_its_draft(
    tmp_path: Path, plan: str, draft_s: float
) -> None:
    async with after_a_blip(tmp_path) as made:
        record = await made.create(key=None, plan=plan)
        assert not partition(made).reach.cut_off  # it was one blip
        await asyncio.sleep(draft_s)
        made.model.go.set()
        async with asyncio.timeout(15):
            while len(partition(made).spool) or await made.jobs.draft("t", record.id) is None:
                await asyncio.sleep(0.02)
        manifest = await made.jobs.manifest("t", record.id)
        assert manifest is None or manifest.outcome == "completed"
        found = await made.videos.get("t", record.id)
        assert found.draft is not None
        assert found.status == ("completed" if plan == "draft" else "queued")
