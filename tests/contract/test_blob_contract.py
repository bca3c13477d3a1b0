"""What every object store must do; run against memory and a local folder."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.selftest import selftest
from adaptivegen.blob.store import open_store
from adaptivegen.errors import InvalidRequest, NotFound

BODY = bytes(range(256)) * 40


@pytest.fixture(params=["memory", "file"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BlobStore]:
    opened = open_store("memory://" if request.param == "memory" else f"file://{tmp_path / 'a b'}")
    yield opened
    await opened.close()


async def test_put_is_read_back_and_replaced(store: BlobStore) -> None:
    await store.put("a/b/c", b"first")
    await store.put("a/b/c", BODY)
    assert await store.get("a/b/c") == BODY


async def test_an_empty_object_is_an_object(store: BlobStore) -> None:
    await store.put("pending/x", b"")
    assert await store.get("pending/x") == b""
    assert (await store.head("pending/x")).size_bytes == 0
    assert [piece async for piece in store.stream("pending/x")] == []


async def test_put_if_absent_keeps_the_first(store: BlobStore) -> None:
    assert await store.put_if_absent("k", b"first") is True
    assert await store.put_if_absent("k", b"second") is False
    assert await store.get("k") == b"first"


async def test_exactly_one_of_many_racing_creates_wins(store: BlobStore) -> None:
    bodies = [str(number).encode() * 1000 for number in range(20)]
    async with asyncio.TaskGroup() as group:
        races = [group.create_task(store.put_if_absent("jobs/t/manifest", body)) for body in bodies]
    winners = [body for body, race in zip(bodies, races, strict=True) if race.result()]
    assert len(winners) == 1
    assert await store.get("jobs/t/manifest") == winners[0]


async def test_put_file_stores_the_files_bytes(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "clip"
    source.write_bytes(BODY)
    await store.put_file("out/clip", source)
    assert await store.get("out/clip") == BODY
    with pytest.raises(InvalidRequest, match="readable file"):
        await store.put_file("out/clip", tmp_path / "missing")


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 5, BODY[:5]),
        (5, None, BODY[5:]),
        (100, 100, b""),
        (len(BODY) - 3, len(BODY) + 50, BODY[-3:]),
        (len(BODY), None, b""),
        (len(BODY) + 7, len(BODY) + 9, b""),
    ],
)
async def test_ranges_are_half_open_and_cut_at_the_end(
    store: BlobStore, start: int, end: int | None, expected: bytes
) -> None:
    await store.put("k", BODY)
    assert await store.get("k", start=start, end=end) == expected
    assert b"".join([piece async for piece in store.stream("k", start=start, end=end, chunk_bytes=777)]) == expected


async def test_an_inverted_range_is_refused(store: BlobStore) -> None:
    await store.put("k", BODY)
    with pytest.raises(InvalidRequest, match="range"):
        await store.get("k", start=9, end=3)


async def test_a_stream_comes_in_pieces(store: BlobStore) -> None:
    await store.put("k", BODY)
    pieces = [piece async for piece in store.stream("k", chunk_bytes=1000)]
    assert b"".join(pieces) == BODY
    assert max(len(piece) for piece in pieces) <= 1000


async def test_missing_objects_are_not_found(store: BlobStore) -> None:
    for read in (store.get("no/such"), store.get("no/such", start=3, end=5), store.head("no/such")):
        with pytest.raises(NotFound, match="no/such"):
            await read
    with pytest.raises(NotFound):
        async for _ in store.stream("no/such"):
            pass


async def test_delete_is_idempotent_and_frees_the_key(store: BlobStore) -> None:
    await store.put("a/k", BODY)
    await store.delete("a/k")
    await store.delete("a/k")
    with pytest.raises(NotFound):
        await store.get("a/k")
    assert await store.put_if_absent("a/k", b"again") is True


async def test_list_gives_what_sorts_behind_a_key_that_need_not_be_there(store: BlobStore) -> None:
    for name in ("a", "b", "c"):
        await store.put(f"days/1/{name}", b"")
    await store.put("days/2/a", b"")
    for after, names in (("days/1/a", "bc"), ("days/1/aa", "bc"), ("days/1/c", ""), ("days/0", "abc"), ("", "abc")):
        found = {meta.key async for meta in store.list("days/1/", after=after)}
        assert found == {f"days/1/{name}" for name in names}


async def test_list_gives_what_is_under_the_folder_and_no_more(store: BlobStore) -> None:
    for key in ("jobs/a/1", "jobs/a/2/spec", "jobs/ab/3", "other"):
        await store.put(key, key.encode())
    found = {meta.key: meta.size_bytes async for meta in store.list("jobs/a/")}
    assert found == {"jobs/a/1": 8, "jobs/a/2/spec": 13}
    assert len([meta async for meta in store.list("")]) == 4
    assert [meta async for meta in store.list("nothing/here/")] == []


async def test_head_tells_size_and_time(store: BlobStore) -> None:
    await store.put("k", BODY)
    meta = await store.head("k")
    assert (meta.key, meta.size_bytes) == ("k", len(BODY))
    assert meta.last_modified_ns > 1_600_000_000_000_000_000


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/../b",
        "a/./b",
        "a\0b",
        "a\nb",
        "a b",
        "a#1",
        "ä",
        "a\\b",
        "x" * 241,
        "a/" * 600,
    ],
)
async def test_illegal_keys_are_refused_by_every_call(store: BlobStore, key: str) -> None:
    calls = (store.put(key, b""), store.put_if_absent(key, b""), store.get(key), store.head(key), store.delete(key))
    for call in calls:
        with pytest.raises(InvalidRequest, match="key is"):
            await call


async def test_the_self_test_passes_and_leaves_nothing(store: BlobStore) -> None:
    await selftest(store, random.Random(1))
    assert [meta async for meta in store.list("")] == []


async def test_writers_of_one_key_at_once_take_nothing_from_one_another(store: BlobStore) -> None:
    for turn in range(40):
        await asyncio.gather(*(store.put("one/key", f"{turn} {writer}".encode()) for writer in range(6)))
    assert (await store.get("one/key")).startswith(b"39 ")
