"""Object stores around object stores: one that must first prove itself, and one that knows what it holds.

Both are `BlobStore`s. Neither decides anything about jobs.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

from adaptivegen.blob.base import BlobStore, ObjectMeta
from adaptivegen.blob.selftest import selftest
from adaptivegen.blob.store import open_store
from adaptivegen.errors import StorageFailure
from edge_node.spool.identity import Identity


class ProvenStore:
    """The store of a URL, which fails every call until it was opened and has passed its self-test: nothing may rely on
    put-if-absent before. An edge with a spool begins without it."""

    def __init__(self, url: str, rng: random.Random, *, identity: Path | None = None) -> None:
        self.url = url
        self._rng = rng
        self._identity = Identity(identity, rng) if identity is not None else None
        self._opened: BlobStore | None = None
        self._proven = False

    async def prove(self) -> None:
        """Open and test it, unless that was done, and see that it is the one of before (`identity`). Raises
        SettingsInvalid, StoreUnsafe, StorageFailure, and what the store raises."""
        if self._opened is None:
            self._opened = open_store(self.url)
        if not self._proven:
            await selftest(self._opened, self._rng)
        if self._identity is not None:
            await self._identity.check(self._opened)
        self._proven = True

    def _store(self) -> BlobStore:
        if self._opened is None or not self._proven:
            raise StorageFailure(f"the object store {self.url} has not been reached since this node began")
        return self._opened

    async def put(self, key: str, data: bytes) -> None:
        await self._store().put(key, data)

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        return await self._store().put_if_absent(key, data)

    async def put_file(self, key: str, path: Path) -> None:
        await self._store().put_file(key, path)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        return await self._store().get(key, start=start, end=end)

    async def stream(
        self, key: str, *, start: int = 0, end: int | None = None, chunk_bytes: int = 256 * 1024
    ) -> AsyncIterator[bytes]:
        async for piece in self._store().stream(key, start=start, end=end, chunk_bytes=chunk_bytes):
            yield piece

    async def head(self, key: str) -> ObjectMeta:
        return await self._store().head(key)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectMeta]:
        async for meta in self._store().list(prefix, after=after):
            yield meta

    async def delete(self, key: str) -> None:
        await self._store().delete(key)

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()


class MeteredStore:
    """A store of one process that knows its keys and their sizes without asking, as far as it wrote or listed them.
    `sizes` are bytes by key, `total_bytes` of all; `measure` reads what is there."""

    def __init__(self, store: BlobStore) -> None:
        self.url = store.url
        self._store = store
        self.sizes: dict[str, int] = {}
        self.total_bytes = 0

    def _measured(self, key: str, size_bytes: int) -> None:
        self.total_bytes += size_bytes - self.sizes.get(key, 0)
        self.sizes[key] = size_bytes

    async def measure(self) -> list[ObjectMeta]:
        """List all that is there, least recently written first."""
        found = [meta async for meta in self._store.list("")]
        self.sizes = {meta.key: meta.size_bytes for meta in found}
        self.total_bytes = sum(self.sizes.values())
        return sorted(found, key=lambda meta: meta.last_modified_ns)

    async def put(self, key: str, data: bytes) -> None:
        await self._store.put(key, data)
        self._measured(key, len(data))

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        won = await self._store.put_if_absent(key, data)
        if won:
            self._measured(key, len(data))
        return won

    async def put_file(self, key: str, path: Path) -> None:
        await self._store.put_file(key, path)
        self._measured(key, (await self._store.head(key)).size_bytes)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        return await self._store.get(key, start=start, end=end)

    def stream(
        self, key: str, *, start: int = 0, end: int | None = None, chunk_bytes: int = 256 * 1024
    ) -> AsyncIterator[bytes]:
        return self._store.stream(key, start=start, end=end, chunk_bytes=chunk_bytes)

    async def head(self, key: str) -> ObjectMeta:
        return await self._store.head(key)

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectMeta]:
        return self._store.list(prefix, after=after)

    async def delete(self, key: str) -> None:
        await self._store.delete(key)
        self.total_bytes -= self.sizes.pop(key, 0)

    async def close(self) -> None:
        await self._store.close()
