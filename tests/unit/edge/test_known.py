"""The finals an edge keeps: within a tenant, within its room, with sound bytes."""

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.errors import StorageFailure
from adaptivegen.jobs.spec import ContentEntry, Media, media_key
from edge_node.spool.known import Known

SIZE = 100


def clip(name: str, *, tenant: str = "t", epoch: int = 1) -> tuple[Media, bytes]:
    data = name.encode().ljust(SIZE, b".")
    sha256 = hashlib.sha256(data).hexdigest()
    key = media_key(tenant, f"vid_{name}", epoch, sha256)
    return Media(key=key, sha256=sha256, size_bytes=SIZE, width=8, height=8, frames=1, fps=1), data


async def remember(known: Known, name: str, *, tenant: str = "t") -> ContentEntry:
    """Keep the final of content key `name`."""
    media, data = clip(name, tenant=tenant)
    source = open_store("memory://")
    await source.put(media.key, data)
    entry = ContentEntry(id=f"vid_{name}", final=media, draft=None, final_steps=4, draft_steps=4)
    await known.remember(tenant, name, entry, source)
    return entry


async def opened(folder: Path, *, max_bytes: int = 100_000) -> Known:
    known = Known(folder, max_bytes=max_bytes)
    await known.open()
    return known


async def test_a_final_is_found_by_its_tenant_alone_also_after_a_restart(tmp_path: Path) -> None:
    first = await opened(tmp_path)
    entry = await remember(first, "a")
    for known in (first, await opened(tmp_path)):
        assert await known.find("t", "a") == entry
        assert await known.find("other", "a") is None
        assert await known.find("t", "b") is None
        assert known.has(entry.final.key)
        assert await known.blob.get(entry.final.key) == clip("a")[1]


async def test_the_longest_unused_is_forgotten_with_its_bytes_when_there_is_no_room(tmp_path: Path) -> None:
    known = await opened(tmp_path, max_bytes=1900)
    entries = {name: await remember(known, name) for name in "ab"}
    assert await known.find("t", "a")
    kept_before = len(known)
    entries |= {name: await remember(known, name) for name in "cde"}
    assert kept_before == 2
    assert known.blob.total_bytes <= 1900
    assert await known.find("t", "b") is None
    assert not known.has(entries["b"].final.key)
    assert entries["b"].final.key not in known.blob.sizes
    assert await known.find("t", "a") == entries["a"]
    assert await known.find("t", "e") == entries["e"]


async def test_one_that_would_take_most_of_the_room_is_not_kept(tmp_path: Path) -> None:
    known = await opened(tmp_path, max_bytes=SIZE * 4 - 1)
    await remember(known, "a")
    assert (len(known), known.blob.total_bytes) == (0, 0)


async def test_damaged_bytes_are_forgotten_and_never_told(tmp_path: Path) -> None:
    known = await opened(tmp_path)
    entry = await remember(known, "a")
    (tmp_path / entry.final.key).write_bytes(b"x" * SIZE)
    assert await known.find("t", "a") is None
    assert not known.has(entry.final.key)
    assert not (tmp_path / entry.final.key).exists()


async def test_what_a_crash_has_left_of_one_is_removed_at_the_start(tmp_path: Path) -> None:
    known = await opened(tmp_path)
    whole, half = await remember(known, "a"), await remember(known, "b")
    (tmp_path / "content" / "t" / "b").unlink()  # its bytes were written, its entry was not
    again = await opened(tmp_path)
    assert await again.find("t", "a") == whole
    assert not (tmp_path / half.final.key).exists()
    (tmp_path / whole.final.key).unlink()
    assert await (await opened(tmp_path)).find("t", "a") is None


async def test_a_final_that_cannot_be_read_is_not_kept(tmp_path: Path) -> None:
    known = await opened(tmp_path)
    media, _ = clip("a")

    class Away:
        async def get(self, key: str) -> bytes:
            raise StorageFailure("away")

    entry = ContentEntry(id="vid_a", final=media, draft=None, final_steps=4, draft_steps=4)
    await known.remember("t", "a", entry, Away())  # type: ignore[arg-type]
    assert await known.find("t", "a") is None


async def test_damaged_bytes_found_twice_at_once_are_a_miss_for_both(tmp_path: Path) -> None:
    known = await opened(tmp_path)
    entry = await remember(known, "a")
    (tmp_path / entry.final.key).write_bytes(b"x" * SIZE)
    found = await asyncio.gather(*(known.find("t", "a") for _ in range(2)))
    assert found == [None, None]


async def test_one_that_is_forgotten_while_it_is_read_is_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = await opened(tmp_path)
    await remember(known, "a")
    get = known.blob.get

    async def evicted(key: str) -> bytes:
        data = await get(key)
        await known._forget("content/t/a")
        return data

    monkeypatch.setattr(known.blob, "get", evicted)
    assert await known.find("t", "a") is None


async def test_bytes_that_cannot_be_deleted_are_a_miss_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = await opened(tmp_path)
    entry = await remember(known, "a")
    (tmp_path / entry.final.key).write_bytes(b"x" * SIZE)

    async def fails(key: str) -> None:
        raise StorageFailure("no")

    monkeypatch.setattr(known.blob, "delete", fails)
    assert await known.find("t", "a") is None


async def test_what_else_lies_in_the_folder_is_left_alone_and_its_name_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "a#b?c%20d"
    stranger = folder / "jobs" / "t" / "vid_a" / "spec"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("precious")
    entry = await remember(await opened(folder), "a")
    assert await (await opened(folder)).find("t", "a") == entry
    assert stranger.read_text() == "precious"
    assert os.listdir(tmp_path) == [folder.name]
    assert folder.stat().st_mode & 0o777 == 0o700
