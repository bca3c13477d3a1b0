"""A worker whose job is deleted: before it begins, while it works, and while it commits."""

from adaptivegen.jobs import sharing
from adaptivegen.jobs.removal import remove
from adaptivegen.jobs.spec import Manifest
from adaptivegen.jobs.store import JobMessage
from tests.jobs import JOB_ID
from tests.unit.worker.bench import Cloud, cloud, is_set, spec_of


async def outputs(parts: Cloud) -> list[str]:
    return [meta.key async for meta in parts.blob.list("out/")]


async def test_a_message_of_a_deleted_video_that_comes_again_is_dropped() -> None:
    async with cloud() as parts:
        await sharing.note_repeats(parts.jobs)
        await parts.jobs.submit(spec_of())
        await parts.until_ended()
        await remove(parts.jobs, "t", JOB_ID)
        queue = await parts.queue()
        await queue.publish(JobMessage(tenant="t", id=JOB_ID).encode(), msg_id="again", headers={})
        await parts.until(parts.settled)
        assert (len(parts.runner.commands), await outputs(parts)) == (1, [])
        assert await parts.jobs.index.ids("t") == []


async def test_deleting_stops_the_model_within_a_step_and_the_message_is_done() -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        await parts.jobs.submit(spec_of())
        await parts.until(lambda: is_set(parts.runner.running))
        await remove(parts.jobs, "t", JOB_ID)

        async def stopped() -> bool:
            return parts.runner.stopped == 1 and await parts.settled()

        await parts.until(stopped)
        assert await parts.jobs.tombstone("t", JOB_ID) is not None


async def test_a_final_that_is_made_while_its_video_is_deleted_is_taken_back() -> None:
    async with cloud() as parts:
        await sharing.note_repeats(parts.jobs)
        finish = parts.jobs.finish

        async def deleted_first(manifest: Manifest) -> object:
            parts.jobs.finish = finish  # type: ignore[method-assign]
            await remove(parts.jobs, "t", JOB_ID)
            await parts.blob.put(manifest.final.key, b"final clip")  # type: ignore[union-attr]  # uploaded since then
            return await finish(manifest)

        parts.jobs.finish = deleted_first  # type: ignore[assignment, method-assign]
        await parts.jobs.submit(spec_of())

        async def over() -> bool:
            return await parts.jobs.tombstone("t", JOB_ID) is not None and await parts.settled()

        await parts.until(over)
        assert await outputs(parts) == []
        assert [meta.key async for meta in parts.blob.list(f"jobs/t/{JOB_ID}/")] == [
            f"jobs/t/{JOB_ID}/closed",
            f"jobs/t/{JOB_ID}/spec",
        ]
        assert [meta.key async for meta in parts.blob.list("content/")] == []
