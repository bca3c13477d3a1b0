"""An upload's way through one edge, decoded by the real child, while the centre fails right after it was stored."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adaptivegen.errors import AdaptiveGenError, StorageFailure
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.store import JobStore
from adaptivegen.jobs.troubles import Troubles
from adaptivegen.jobs.uploads import UploadSweep
from edge_node.spool.handover import hand_over
from tests.stamps import Stamps
from tests.unit.edge.bench import BODY, Edge, edge


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (40, 90, 200)).save(buffer, format="PNG")
    return buffer.getvalue()


async def create(made: Edge, key: str = "k") -> JobRecord:
    return await made.videos.create("t", BODY, upload=picture(), idempotency_key=key)


async def uploads(jobs: JobStore) -> list[str]:
    return [meta.key async for meta in jobs.blob.list("inputs/")]


async def key_of(jobs: JobStore, job_id: str) -> str:
    reference = (await jobs.spec("t", job_id)).request.reference
    assert reference is not None
    return reference.key


def fail_after_the_upload(made: Edge) -> Any:
    """The centre's store takes an upload, and then nothing more; returns what ends that."""
    put = made.jobs.blob.put

    async def failing(key: str, data: bytes) -> None:
        if not key.startswith("inputs/"):
            raise StorageFailure("away")
        await put(key, data)

    def back() -> None:
        made.jobs.blob.put = put  # type: ignore[method-assign]

    made.jobs.blob.put = failing  # type: ignore[method-assign]
    return back


async def sweep(made: Edge) -> int:
    """A sweep of two hours later."""
    await Stamps(made.jobs.blob).passes(2 * 3600.0)
    return await UploadSweep(made.jobs, Troubles()).sweep()


async def test_the_upload_of_a_submission_that_failed_is_swept_and_sending_it_again_makes_the_video() -> None:
    async with edge() as made:
        back = fail_after_the_upload(made)
        with pytest.raises(AdaptiveGenError):
            await create(made)
        (left,) = await uploads(made.jobs)
        back()
        record = await create(made)
        kept = await key_of(made.jobs, record.id)
        assert kept != left
        assert await sweep(made) == 1
        assert await uploads(made.jobs) == [kept]
        assert await create(made) == await made.videos.get("t", record.id)  # the same request stores nothing more
        assert await uploads(made.jobs) == [kept]


async def test_a_job_that_was_cut_off_after_its_upload_has_it_in_the_spool_and_brings_it_along(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        back = fail_after_the_upload(made)
        record = await create(made)
        (left,) = await uploads(made.jobs)
        assert made.partition is not None
        spool = made.partition.spool
        assert await uploads(spool.jobs) == [await key_of(spool.jobs, record.id)]
        back()

        async def again(spec: Any, drafted: bool) -> None:
            return None

        await hand_over(spool.held[0], spool=spool, centre=made.jobs, again=again, node_id="edge-1")
        assert await key_of(made.jobs, record.id) == left  # it is not stored once more
        assert (await sweep(made), await uploads(made.jobs)) == (0, [left])
        assert await uploads(spool.jobs) == []
