"""What the cache lets go of when it is told: at once, without hurting who reads, and not from a fetch on its way."""

import asyncio
from pathlib import Path

import pytest

from adaptivegen.errors import NotFound
from tests.unit.cdn_cache.test_disk import Origin, files, read, running


async def test_a_dropped_object_is_off_the_disk_and_fetched_anew(tmp_path: Path) -> None:
    origin = Origin()
    (key, name), (other_key, other) = await origin.add(b"clip"), await origin.add(b"another")
    async with running(tmp_path, origin) as store:
        await read(store, key, name)
        await read(store, other_key, other)
        await store.drop([name, "0" * 64])
        assert set(files(tmp_path)) == {other}
        assert (await read(store, key, name), store.counts.purged) == ((b"clip", "miss"), 1)
        await store.drop_all()
        assert (files(tmp_path), store.used_bytes) == ({}, 0)


async def test_a_dropped_object_that_is_deleted_is_not_found(tmp_path: Path) -> None:
    origin = Origin()
    key, name = await origin.add(b"clip")
    async with running(tmp_path, origin) as store:
        await read(store, key, name)
        await origin.delete(key)
        assert (await read(store, key, name))[1] == "hit"
        await store.drop([name])
        with pytest.raises(NotFound):
            await read(store, key, name)


async def test_who_reads_what_is_dropped_reads_it_to_its_end(tmp_path: Path) -> None:
    origin = Origin()
    key, name = await origin.add(b"clip")
    async with running(tmp_path, origin) as store, store.reading(key, name) as cached:
        await store.drop([name])
        assert cached.file.read() == b"clip"


async def test_what_is_dropped_while_it_is_fetched_is_not_kept(tmp_path: Path) -> None:
    origin = Origin()
    key, name = await origin.add(b"clip")
    origin.gate.clear()
    async with running(tmp_path, origin) as store:
        reading = asyncio.create_task(read(store, key, name))
        await origin.half_way.wait()
        await store.drop([name])
        await origin.delete(key)
        origin.gate.set()
        with pytest.raises(NotFound):
            await reading
        assert files(tmp_path) == {}
