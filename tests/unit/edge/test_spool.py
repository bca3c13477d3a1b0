"""The spool's folder: one process, what a crash leaves in it, room, and what it does not take down with it."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from adaptivegen.errors import (
    STATUS,
    AlreadyRunning,
    InternalError,
    NotFound,
    ResourceExhausted,
    SettingsInvalid,
    StorageFailure,
    StorageFull,
)
from adaptivegen.jobs.spec import job_key
from edge_node.spool.own_store import SpoolFailure, SpoolFull, SpoolReadOnly
from edge_node.spool.rules import SpoolLimits
from edge_node.spool.spool import Envelope, Spool
from tests.jobs import JOB_ID, make_spec
from tests.unit.edge.spooling import LIMITS, bench, draft_only, refine


async def test_two_edges_do_not_share_a_spool_and_the_next_life_has_it(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    with pytest.raises(AlreadyRunning):
        await Spool(tmp_path, limits=LIMITS, clock=made.clock).open(random.Random(2))
    await made.start()


async def test_a_job_and_its_draft_and_its_state_are_there_in_the_next_life(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    await made.put(refine().model_copy(update={"notes": ("kept here",)}), key="k")
    before = await made.spool.jobs.find("t", JOB_ID)
    used = made.spool.used_bytes
    spool = await made.start()
    assert await spool.jobs.find("t", JOB_ID) == before
    assert before.notes == ("kept here",)
    assert (spool.ids("t"), spool.ids("other"), spool.used_bytes) == ([JOB_ID], [], used)
    assert [envelope.key for envelope in spool.held] == ["k"]
    assert await spool.open_drafts() == []


async def test_a_draft_that_was_not_made_yet_is_to_be_made_in_the_next_life(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    await made.put(refine(), draft=None)
    spool = await made.start()
    assert [spec.id for spec, _ in await spool.open_drafts()] == [JOB_ID]
    await spool.jobs.cancel("t", JOB_ID)
    assert await (await made.start()).open_drafts() == []


@pytest.mark.parametrize("left", ["a submission", "a removal"])
async def test_what_a_crash_left_of_a_job_without_a_spec_is_no_job_and_is_removed(tmp_path: Path, left: str) -> None:
    made = await bench(tmp_path)
    if left == "a removal":
        await made.put(refine(), key="k")
        (tmp_path / "jobs" / job_key("t", JOB_ID, "spec")).unlink()
    else:
        envelope = Envelope(tenant="t", id=JOB_ID, key="k", spooled_at_ns=1)
        await made.spool.admit(envelope, needed_bytes=0)
        await made.spool.blob.put(f"pending/t.{JOB_ID}", b"")
        await made.spool.blob.put(f"inputs/t/{'e' * 64}", b"upload")
    spool = await made.start()
    assert (len(spool), spool.used_bytes, made.files()) == (0, 0, [])
    assert spool.bound("t", "k", "") is None


async def test_a_job_that_cannot_be_read_stays_and_hides_no_other(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    good = JOB_ID[:-1] + "1"
    await made.put(refine())
    await made.put(make_spec(job_id=good), key="k")
    (tmp_path / "jobs" / job_key("t", JOB_ID, "spec")).write_text("damaged")
    (tmp_path / "jobs" / "envelope" / f"t.{good}").write_text("damaged")
    spool = await made.start()
    assert spool.ids("t") == [JOB_ID, good]
    with pytest.raises(InternalError):
        await made.hand_over()
    assert (await spool.jobs.find("t", good)).status == "queued"
    assert spool.state("t", good) == "begun"  # nobody knows what the centre has of it


async def test_a_full_spool_refuses_and_a_submission_that_failed_gives_its_place_back(tmp_path: Path) -> None:
    made = await bench(tmp_path, limits=SpoolLimits(max_jobs=1, max_bytes=1024**3))
    refused = []
    made.spool.on_refused = lambda: refused.append(1)
    first = Envelope(tenant="t", id="vid_a", spooled_at_ns=1)
    await made.spool.admit(first, needed_bytes=0)
    with pytest.raises(ResourceExhausted):
        await made.spool.admit(Envelope(tenant="t", id="vid_b", spooled_at_ns=1), needed_bytes=0)
    made.spool.settle(first)  # its spec was never written
    await made.put(refine())
    with pytest.raises(ResourceExhausted):
        made.spool.check_room(0)
    assert refused == [1]
    await made.hand_over()
    made.spool.check_room(0)


async def test_a_job_taken_in_twice_counts_once(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    counted = []
    made.spool.on_job = lambda: counted.append(1)
    await asyncio.gather(made.put(draft_only()), made.put(draft_only()))
    assert (len(made.spool), counted) == (1, [1])


async def test_nothing_is_left_in_memory_of_a_job_that_was_handed_over(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    for number in range(3):
        await made.put(make_spec(job_id=f"{JOB_ID[:-1]}{number}"), draft=None, key=f"k{number}")
        await made.hand_over()
    bucket = await made.spool.jobs.bus.kv("jobs")
    assert (await bucket.keys(), made.spool.blob.sizes, made.spool.used_bytes) == ([], {}, 0)


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%20b", "a b", "\u00e4"])
async def test_a_folder_of_any_name_holds_its_jobs_itself(tmp_path: Path, name: str) -> None:
    made = await bench(tmp_path / name)
    await made.put(refine())
    assert (tmp_path / name / "jobs" / job_key("t", JOB_ID, "spec")).is_file()
    assert (await made.start()).ids("t") == [JOB_ID]
    assert os.listdir(tmp_path) == [name]


async def test_what_is_not_of_the_spools_kinds_is_left_alone(tmp_path: Path) -> None:
    strangers = [tmp_path / "jobs" / name for name in ("notes.txt", "models/m/weights", "jobs/a b/c/spec", "jobs/spec")]
    for path in strangers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    orphan = tmp_path / "jobs" / "pending" / "t.vid_a"
    orphan.parent.mkdir()
    orphan.write_text("")
    spool = (await bench(tmp_path)).spool
    assert [path.read_text() for path in strangers[:3]] == ["precious"] * 3
    assert (len(spool), orphan.exists()) == (0, False)


@pytest.mark.parametrize("how", ["its write fails", "its caller is cancelled"])
async def test_a_job_that_was_not_admitted_leaves_neither_place_nor_key(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await bench(tmp_path, limits=SpoolLimits(max_jobs=1, max_bytes=1024**3))
    begun = asyncio.Event()

    async def put(key: str, data: bytes) -> None:
        begun.set()
        if how == "its write fails":
            raise StorageFailure("no")
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(made.spool.blob, "put", put)
        envelope = Envelope(tenant="t", id="vid_a", key="k", body="b", spooled_at_ns=1)
        task = asyncio.create_task(made.spool.admit(envelope, needed_bytes=0))
        await begun.wait()
        task.cancel()
        with pytest.raises((StorageFailure, asyncio.CancelledError)):
            await task
    made.spool.check_room(0)
    assert made.spool.bound("t", "k", "another body") is None


async def test_the_folder_is_closed_to_others_and_one_with_their_files_is_refused(tmp_path: Path) -> None:
    empty, theirs, older = (tmp_path / name for name in ("empty", "theirs", "older"))
    for folder in (empty, theirs, older):
        folder.mkdir()
        folder.chmod(0o755)
    (theirs / "file").write_text("theirs")
    (older / ".lock").write_text("")
    (older / "jobs").mkdir(mode=0o755)
    for folder in (empty, older):
        await bench(folder)
        assert [path.stat().st_mode & 0o777 for path in (folder, folder / "jobs")] == [0o700, 0o700]
    with pytest.raises(SettingsInvalid, match="theirs"):
        await bench(theirs)
    assert theirs.stat().st_mode & 0o777 == 0o755


async def test_a_spool_whose_store_cannot_be_opened_says_why_and_can_be_closed(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("no folder")
    spool = Spool(tmp_path, limits=LIMITS, clock=(await bench(tmp_path / "other")).clock)
    with pytest.raises(SpoolFailure):
        await spool.open(random.Random(1))
    await spool.close()
    (tmp_path / "jobs").unlink()
    await bench(tmp_path)  # the lock was let go


async def test_a_failure_of_the_spools_own_disk_is_told_from_one_of_the_centre(tmp_path: Path) -> None:
    made = await bench(tmp_path)
    with pytest.raises(NotFound):
        await made.spool.blob.get("jobs/t/none/spec")
    assert [meta.key async for meta in made.spool.blob.list("")] == []
    (tmp_path / "jobs").rename(tmp_path / "gone")
    with pytest.raises(SpoolFailure):
        await made.spool.blob.put("jobs/t/a/spec", b"")
    with pytest.raises(SpoolFailure):
        _ = [meta async for meta in made.spool.blob.list("")]
    assert (SpoolFailure.code, SpoolFull.code, SpoolReadOnly.retryable) == ("storage_failure", "storage_full", False)
    assert (STATUS[SpoolFull], STATUS[SpoolFailure]) == (STATUS[StorageFull], STATUS[StorageFailure])
