"""The cache's store: one fetch for many, verified bytes, the bound, and every way an object can be wrong."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from adaptivegen.blob.base import ObjectMeta
from adaptivegen.blob.store import ObjectStore
from adaptivegen.errors import AlreadyRunning, NotFound, StorageFailure, StorageFull
from cdn_cache.eviction.lru import Lru
from cdn_cache.store.disk import CHUNK_BYTES, CorruptObject, DiskStore
from cdn_cache.store.folder import MAX_QUARANTINED


class Origin(ObjectStore):
    """A memory store that counts reads and, when `gate` is closed, stops each in the middle."""

    def __init__(self) -> None:
        super().__init__("memory://", MemoryStore(), deadline_s=5.0, root=None)
        self.streams = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.half_way = asyncio.Event()

    async def add(self, data: bytes, *, sha256: str | None = None) -> tuple[str, str]:
        """Key and digest of a new object; another digest than its own when given."""
        name = sha256 or hashlib.sha256(data).hexdigest()
        key = f"out/t/vid/1/{name}.mp4"
        await self.put(key, data)
        return key, name

    async def stream(
        self, key: str, *, start: int = 0, end: int | None = None, chunk_bytes: int = CHUNK_BYTES
    ) -> AsyncIterator[bytes]:
        self.streams += 1
        data = await self.get(key, start=start, end=end)
        yield data[: len(data) // 2]
        self.half_way.set()
        await self.gate.wait()
        yield data[len(data) // 2 :]


@asynccontextmanager
async def running(folder: Path, origin: Origin, *, capacity_bytes: int = 1_000_000) -> AsyncIterator[DiskStore]:
    store = DiskStore(folder, Lru(capacity_bytes), origin)
    opened = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(store.run(opened))
        await opened.wait()
        try:
            yield store
        finally:
            task.cancel()


async def read(store: DiskStore, key: str, name: str) -> tuple[bytes, str]:
    async with store.reading(key, name) as cached:
        return cached.file.read(), cached.how


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


async def test_a_miss_is_fetched_and_then_hit(tmp_path: Path) -> None:
    origin = Origin()
    key, name = await origin.add(b"clip" * 1000)
    async with running(tmp_path, origin) as store:
        assert await read(store, key, name) == (b"clip" * 1000, "miss")
        assert await read(store, key, name) == (b"clip" * 1000, "hit")
        assert (store.counts.misses, store.counts.hits, origin.streams) == (1, 1, 1)
        assert files(tmp_path) == {name: b"clip" * 1000}


async def test_concurrent_misses_fetch_once(tmp_path: Path) -> None:
    origin = Origin()
    key, name = await origin.add(b"clip" * 1000)
    async with running(tmp_path, origin) as store:
        answers = await asyncio.gather(*(read(store, key, name) for _ in range(20)))
        assert {data for data, _ in answers} == {b"clip" * 1000}
        assert sorted(how for _, how in answers) == ["joined"] * 19 + ["miss"]
        assert origin.streams == 1


async def test_a_fetch_goes_on_when_its_first_asker_leaves(tmp_path: Path) -> None:
    origin = Origin()
    key, name = await origin.add(b"clip" * 1000)
    origin.gate.clear()
    async with running(tmp_path, origin) as store:
        async with asyncio.TaskGroup() as group:
            leader = group.create_task(read(store, key, name))
            await origin.half_way.wait()
            follower = group.create_task(read(store, key, name))
            leader.cancel()
            assert files(tmp_path).keys() == {f"{name}.filling"}
            origin.gate.set()
        assert follower.result() == (b"clip" * 1000, "joined")
        assert origin.streams == 1


async def test_a_fetch_nobody_waits_for_any_more_is_kept(tmp_path: Path) -> None:
    origin = Origin()
    key, name = await origin.add(b"clip" * 1000)
    origin.gate.clear()
    async with running(tmp_path, origin) as store:
        leader = asyncio.ensure_future(read(store, key, name))
        await origin.half_way.wait()
        leader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leader
        origin.gate.set()
        assert (await read(store, key, name))[0] == b"clip" * 1000
        assert origin.streams == 1


async def test_a_missing_object_does_not_end_the_cache(tmp_path: Path) -> None:
    origin = Origin()
    key, name = await origin.add(b"clip")
    async with running(tmp_path, origin) as store:
        for _ in range(2):
            with pytest.raises(NotFound):
                await read(store, f"out/t/vid/1/{'0' * 64}.mp4", "0" * 64)
        assert await read(store, key, name) == (b"clip", "miss")


async def test_bytes_that_are_not_what_their_name_says_are_never_served(tmp_path: Path) -> None:
    origin = Origin()
    key, name = await origin.add(b"not it", sha256="a" * 64)
    async with running(tmp_path, origin) as store:
        with pytest.raises(CorruptObject, match=hashlib.sha256(b"not it").hexdigest()):
            await read(store, key, name)
        assert files(tmp_path) == {}
        assert (tmp_path / "quarantine" / name).read_bytes() == b"not it"
        assert store.used_bytes == 0
        for number in range(MAX_QUARANTINED + 3):
            other, digest = await origin.add(b"wrong", sha256=f"{number:064d}")
            with pytest.raises(CorruptObject):
                await read(store, other, digest)
        assert len(list((tmp_path / "quarantine").iterdir())) == MAX_QUARANTINED


async def test_an_object_that_is_repaired_is_served(tmp_path: Path) -> None:
    origin = Origin()
    name = hashlib.sha256(b"right").hexdigest()
    key, _ = await origin.add(b"wrong", sha256=name)
    async with running(tmp_path, origin) as store:
        with pytest.raises(CorruptObject):
            await read(store, key, name)
        await origin.add(b"right")
        assert await read(store, key, name) == (b"right", "miss")


async def test_a_restart_finds_its_files_and_checks_each_once(tmp_path: Path) -> None:
    origin = Origin()
    key, name = await origin.add(b"clip")
    async with running(tmp_path, origin) as store:
        await read(store, key, name)
    async with running(tmp_path, origin) as store:
        assert store.used_bytes == 4
        assert await read(store, key, name) == (b"clip", "hit")
    assert origin.streams == 1


@pytest.mark.parametrize("damage", [b"", b"cl", b"clop", b"clip and more"])
async def test_a_file_damaged_while_we_were_down_is_fetched_again(tmp_path: Path, damage: bytes) -> None:
    origin = Origin()
    key, name = await origin.add(b"clip")
    async with running(tmp_path, origin) as store:
        await read(store, key, name)
    (tmp_path / name).write_bytes(damage)
    async with running(tmp_path, origin) as store:
        answers = await asyncio.gather(*(read(store, key, name) for _ in range(5)))
        assert {data for data, _ in answers} == {b"clip"}
        assert (store.counts.damaged, origin.streams) == (1, 2)
        assert files(tmp_path) == {name: b"clip"}
        assert store.used_bytes == 4


@pytest.mark.parametrize("damage", [None, b"cl"])
async def test_a_file_lost_or_cut_while_we_run_is_fetched_again(tmp_path: Path, damage: bytes | None) -> None:
    origin = Origin()
    key, name = await origin.add(b"clip")
    async with running(tmp_path, origin) as store:
        await read(store, key, name)
        if damage is None:
            (tmp_path / name).unlink()
        else:
            (tmp_path / name).write_bytes(damage)
        answers = await asyncio.gather(*(read(store, key, name) for _ in range(5)))
        assert {data for data, _ in answers} == {b"clip"}
        assert origin.streams == 2


async def test_what_a_crash_left_half_written_is_removed(tmp_path: Path) -> None:
    origin = Origin()
    key, name = await origin.add(b"clip")
    (tmp_path / f"{name}.filling").write_bytes(b"cl")
    async with running(tmp_path, origin) as store:
        assert files(tmp_path) == {}
        assert await read(store, key, name) == (b"clip", "miss")


async def test_the_bound_holds_while_objects_come_and_go(tmp_path: Path) -> None:
    origin = Origin()
    objects = [await origin.add(bytes([number]) * 300) for number in range(20)]
    async with running(tmp_path, origin, capacity_bytes=1000) as store:
        for key, name in objects:
            await read(store, key, name)
            assert sum(len(data) for data in files(tmp_path).values()) <= 1000
        assert store.used_bytes == 900
        assert files(tmp_path).keys() == {name for _, name in objects[-3:]}
        assert store.counts.evicted == 17


async def test_a_smaller_capacity_holds_from_the_start(tmp_path: Path) -> None:
    origin = Origin()
    objects = [await origin.add(bytes([number]) * 300) for number in range(3)]
    async with running(tmp_path, origin) as store:
        for key, name in objects:
            await read(store, key, name)
    async with running(tmp_path, origin, capacity_bytes=500) as store:
        assert store.used_bytes == 300
        assert len(files(tmp_path)) == 1


async def test_what_is_read_is_not_evicted_and_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    origin = Origin()
    (first, first_name), (second, second_name) = await origin.add(b"1" * 600), await origin.add(b"2" * 600)
    async with running(tmp_path, origin, capacity_bytes=1000) as store:
        async with store.reading(first, first_name):
            with pytest.raises(StorageFull):
                await read(store, second, second_name)
        assert await read(store, first, first_name) == (b"1" * 600, "hit")
        assert await read(store, second, second_name) == (b"2" * 600, "miss")


async def test_a_fetch_without_readers_is_not_evicted_under_way(tmp_path: Path) -> None:
    origin = Origin()
    (first, first_name), (second, second_name) = await origin.add(b"1" * 600), await origin.add(b"2" * 600)
    origin.gate.clear()
    async with running(tmp_path, origin, capacity_bytes=1000) as store:
        leader = asyncio.ensure_future(read(store, first, first_name))
        await origin.half_way.wait()
        leader.cancel()
        with pytest.raises(StorageFull):
            await read(store, second, second_name)
        origin.gate.set()
        assert (await read(store, first, first_name))[0] == b"1" * 600
        assert store.used_bytes == 600


CLIP = bytes(range(256)) * 12 * 1024  # three chunks
RANGES = [(0, len(CLIP)), (0, 5), (len(CLIP) - 5, len(CLIP)), (CHUNK_BYTES - 3, CHUNK_BYTES + 3), (7, len(CLIP) - 7)]


class Liar(Origin):
    """Gives other bytes than it has, or says another size."""

    def __init__(self, given: bytes = CLIP, *, said_bytes: int = len(CLIP)) -> None:
        super().__init__()
        self.given = given
        self.said_bytes = said_bytes

    async def head(self, key: str) -> ObjectMeta:
        return replace(await super().head(key), size_bytes=self.said_bytes)

    async def stream(
        self, key: str, *, start: int = 0, end: int | None = None, chunk_bytes: int = CHUNK_BYTES
    ) -> AsyncIterator[bytes]:
        given = self.given[start:end]
        for at in range(0, len(given), chunk_bytes):
            yield given[at : at + chunk_bytes]


def flipped(at: int) -> bytes:
    return CLIP[:at] + bytes([CLIP[at] ^ 1]) + CLIP[at + 1 :]


LIES = {
    "flipped at the start": lambda: Liar(flipped(0)),
    "flipped in the middle": lambda: Liar(flipped(len(CLIP) // 2)),
    "flipped at the end": lambda: Liar(flipped(len(CLIP) - 1)),
    "short": lambda: Liar(CLIP[:-1]),
    "empty": lambda: Liar(b""),
    "long": lambda: Liar(CLIP + b"x"),
    "says more": lambda: Liar(said_bytes=len(CLIP) + 10),
    "says less": lambda: Liar(said_bytes=len(CLIP) - 10),
}


@pytest.mark.parametrize("lie", LIES)
async def test_an_origin_that_lies_is_neither_served_nor_kept(tmp_path: Path, lie: str) -> None:
    origin = LIES[lie]()
    key, name = await origin.add(CLIP)
    async with running(tmp_path, origin, capacity_bytes=10**8) as store:
        for _ in range(2):
            with pytest.raises((CorruptObject, StorageFailure)):
                await read(store, key, name)
            assert (files(tmp_path), store.used_bytes) == ({}, 0)
        origin.given, origin.said_bytes = CLIP, len(CLIP)
        assert await read(store, key, name) == (CLIP, "miss")
        assert await read(store, key, name) == (CLIP, "hit")


@pytest.mark.parametrize("wanted", RANGES)
@pytest.mark.parametrize("lie", LIES)
async def test_a_pass_through_of_an_origin_that_lies_never_reaches_its_end(
    tmp_path: Path, lie: str, wanted: tuple[int, int]
) -> None:
    origin = LIES[lie]()
    key, name = await origin.add(CLIP)
    start, end = wanted
    async with running(tmp_path, origin) as store:
        given = b""
        with pytest.raises((CorruptObject, StorageFailure)):
            async for piece in store.stream_origin(key, name, start=start, end=end, size_bytes=origin.said_bytes):
                given += piece
        assert len(given) < end - start


@pytest.mark.parametrize("wanted", RANGES)
async def test_a_pass_through_gives_just_the_range(tmp_path: Path, wanted: tuple[int, int]) -> None:
    origin = Liar()
    key, name = await origin.add(CLIP)
    start, end = wanted
    async with running(tmp_path, origin) as store:
        pieces = store.stream_origin(key, name, start=start, end=end, size_bytes=len(CLIP))
        assert b"".join([piece async for piece in pieces]) == CLIP[start:end]


async def test_a_failing_origin_fails_the_read_and_leaves_nothing(tmp_path: Path) -> None:
    class Failing(Origin):
        async def stream(
            self, key: str, *, start: int = 0, end: int | None = None, chunk_bytes: int = CHUNK_BYTES
        ) -> AsyncIterator[bytes]:
            yield b"half"
            raise StorageFailure("the connection broke")

    origin = Failing()
    key, name = await origin.add(b"half and half")
    async with running(tmp_path, origin) as store:
        with pytest.raises(StorageFailure, match="broke"):
            await read(store, key, name)
        assert store.used_bytes == 0
    assert files(tmp_path) == {}


async def test_a_folder_has_one_cache(tmp_path: Path) -> None:
    origin = Origin()
    async with running(tmp_path, origin):
        with pytest.raises(AlreadyRunning, match="another media cache"):
            await DiskStore(tmp_path, Lru(1), origin).run(asyncio.Event())
    async with running(tmp_path, origin):
        pass
