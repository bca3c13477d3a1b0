"""A cache store whose origin stops half-way, for killing it there: `python -m tests.integration.stalling_cache DIR`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from obstore.store import MemoryStore

from adaptivegen.blob.store import ObjectStore
from cdn_cache.eviction.lru import Lru
from cdn_cache.store.disk import CHUNK_BYTES, DiskStore


class Stalling(ObjectStore):
    """Gives one chunk of the object, says so, and no more."""

    async def stream(
        self, key: str, *, start: int = 0, end: int | None = None, chunk_bytes: int = CHUNK_BYTES
    ) -> AsyncIterator[bytes]:
        yield (await self.get(key))[:chunk_bytes]
        sys.stdout.write("half\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


async def main(folder: Path, key: str, size_bytes: int) -> None:
    """Begin to fetch `key`."""
    origin = Stalling("memory://", MemoryStore(), deadline_s=5.0, root=None)
    await origin.put(key, bytes(size_bytes))
    store = DiskStore(folder, Lru(10**9), origin)
    opened = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(store.run(opened))
        await opened.wait()
        async with store.reading(key, key.rpartition("/")[2].removesuffix(".mp4")):
            pass


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
