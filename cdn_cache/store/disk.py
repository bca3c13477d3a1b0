"""Objects on disk, named by their SHA-256: filled once, verified, bounded, rebuilt by a scan.

Owns the folder. An object is written to a temporary file while its digest is computed, synced, and renamed: a name that
exists holds what it says, or was damaged later. The index is disposable: a start scans the folder, and the first read
of each file after a start compares its digest. Blocking work runs in the store's own threads.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

from adaptivegen.blob.base import BlobStore
from adaptivegen.errors import InternalError, StorageFailure, StorageFull, StorageReadOnly
from adaptivegen.telemetry import get_logger
from cdn_cache.eviction.base import EvictionPolicy

Result = TypeVar("Result")
P = ParamSpec("P")
CHUNK_BYTES = 1024 * 1024
TEMPORARY = ".filling"


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A verified file."""

    path: Path
    size_bytes: int


@dataclass(slots=True)
class Counts:
    """What the store did since its start."""

    hits: int = 0
    misses: int = 0
    joined: int = 0
    evicted: int = 0
    damaged: int = 0


class DiskStore:
    """One folder of objects. `open` before use; one process per folder."""

    def __init__(self, folder: Path, policy: EvictionPolicy, origin: BlobStore) -> None:
        self._folder = folder
        self._policy = policy
        self._origin = origin
        self._verified: dict[str, int] = {}
        self._unverified: dict[str, int] = {}
        self._filling: dict[str, asyncio.Task[CachedFile]] = {}
        self._readers: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="cache-disk")
        self._group: asyncio.TaskGroup | None = None
        self.counts = Counts()

    async def run(self, opened: asyncio.Event) -> None:
        """Scan the folder, then own the fills, until cancelled. Raises StorageReadOnly or StorageFull."""
        found = await self._in_thread(self._scan)
        for name, size_bytes in found:
            victims = self._policy.admit(name, size_bytes, pinned=())
            if victims is None:
                await self._in_thread(_unlink, self._path(name))
                continue
            self._unverified[name] = size_bytes
            await self._drop(victims)
        async with asyncio.TaskGroup() as group:
            self._group = group
            opened.set()
            await asyncio.Event().wait()

    async def get(self, key: str, sha256: str) -> tuple[CachedFile, str]:
        """The file of an object and how it came ("hit", "miss", "joined"); fetched from the store if need be.

        Concurrent misses share one fetch, which goes on when its first asker leaves. Raises NotFound, StorageFailure,
        StorageFull, or InternalError when the store's object does not have the digest in its name.
        """
        name = sha256
        if name in self._unverified:
            await self._verify(name)
        if name in self._verified:
            self.counts.hits += 1
            self._policy.touch(name)
            return CachedFile(self._path(name), self._verified[name]), "hit"
        fill = self._filling.get(name)
        how = "joined" if fill is not None else "miss"
        if fill is None:
            if self._group is None:
                raise InternalError("the cache is not open")
            fill = self._filling[name] = self._group.create_task(self._fill_safely(key, name))
            fill.add_done_callback(lambda done: done.cancelled() or done.exception())
            self.counts.misses += 1
        else:
            self.counts.joined += 1
        return await asyncio.shield(fill), how

    @contextmanager
    def reading(self, sha256: str) -> Iterator[None]:
        """Keep an object from being given up while it is sent."""
        self._readers[sha256] += 1
        try:
            yield
        finally:
            self._readers[sha256] -= 1
            if not self._readers[sha256]:
                del self._readers[sha256]

    def stream_origin(self, key: str, *, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes straight from the object store, for when they cannot be kept."""
        return self._origin.stream(key, start=start, end=end)

    async def origin_size(self, key: str) -> int:
        """Size of an object in the store; raises NotFound."""
        return (await self._origin.head(key)).size_bytes

    # ---- filling ----------------------------------------------------------------------------------------------

    async def _fill_safely(self, key: str, name: str) -> CachedFile:
        """A fill's error goes to whoever waits for it; it must not end the group."""
        try:
            return await self._fill(key, name)
        finally:
            del self._filling[name]

    async def _fill(self, key: str, name: str) -> CachedFile:
        size_bytes = (await self._origin.head(key)).size_bytes
        victims = self._policy.admit(name, size_bytes, pinned=self._readers)
        if victims is None:
            raise StorageFull(f"object of {size_bytes} bytes does not fit into the cache")
        await self._drop(victims)
        temporary = self._folder / f"{name}{TEMPORARY}"
        try:
            await self._download(key, name, temporary)
            await self._in_thread(_publish, temporary, self._path(name))
        except BaseException:
            self._policy.remove(name)
            await self._in_thread(_unlink, temporary)
            raise
        self._verified[name] = size_bytes
        return CachedFile(self._path(name), size_bytes)

    async def _download(self, key: str, name: str, temporary: Path) -> None:
        digest = hashlib.sha256()
        file = await self._in_thread(temporary.open, "wb")
        try:
            async for chunk in self._origin.stream(key, chunk_bytes=CHUNK_BYTES):
                digest.update(chunk)
                await self._in_thread(file.write, chunk)
            await self._in_thread(_sync, file)
        finally:
            await self._in_thread(file.close)
        if digest.hexdigest() != name:
            raise InternalError(f"object {key} in the store has sha256 {digest.hexdigest()}, its name says {name}")

    async def _verify(self, name: str) -> None:
        """The first read after a start: compare size and digest; a damaged file is deleted and fetched again."""
        expected_bytes = self._unverified.pop(name, None)
        if expected_bytes is None:
            return
        found = await self._in_thread(_digest, self._path(name))
        if found == name:
            self._verified[name] = expected_bytes
            return
        self.counts.damaged += 1
        get_logger().warning("cached_file_damaged", sha256=name)
        self._policy.remove(name)
        await self._in_thread(_unlink, self._path(name))

    async def _drop(self, victims: list[str]) -> None:
        for victim in victims:
            self.counts.evicted += 1
            self._verified.pop(victim, None)
            self._unverified.pop(victim, None)
            await self._in_thread(_unlink, self._path(victim))

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _scan(self) -> list[tuple[str, int]]:
        """Names and sizes, least recently used first; what a crash left half-written is removed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for path in self._folder.iterdir():
            if path.name.endswith(TEMPORARY):
                path.unlink(missing_ok=True)
            elif len(path.name) == 64 and path.is_file():
                status = path.stat()
                found.append((status.st_atime, path.name, status.st_size))
        return [(name, size_bytes) for _, name, size_bytes in sorted(found)]

    async def _in_thread(self, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull("no space left on the cache's disk") from exc
            if exc.errno in (errno.EROFS, errno.EACCES):
                raise StorageReadOnly(f"the cache's folder cannot be written: {exc.strerror}") from exc
            raise StorageFailure(f"the cache's disk failed: {exc}") from exc


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fdatasync(file.fileno())


def _publish(temporary: Path, path: Path) -> None:
    """Give a complete file its name, durably."""
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
