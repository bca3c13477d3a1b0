"""Objects on disk, named by their SHA-256: fetched once, verified, bounded, rebuilt by a scan.

Owns the index and the fetches. The index is disposable: a start scans the folder, and the first read of each file
after a start compares its digest; every read compares its size. Concurrent misses of one object share one flight,
which goes on when its first asker leaves. Blocking work runs in the store's own threads; changes of names run in one
of them, in order, so that a removal can never hit a file that was published after it was decided.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, ParamSpec, TypeVar

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.store import storage_error
from adaptivegen.errors import AdaptiveGenError, InternalError, StorageFailure, StorageFull
from adaptivegen.telemetry import get_logger
from cdn_cache.eviction.base import EvictionPolicy
from cdn_cache.store.folder import Folder, sync

Result = TypeVar("Result")
P = ParamSpec("P")
How = Literal["hit", "miss", "joined"]
CHUNK_BYTES = 1024 * 1024
MAX_FLIGHTS = 16  # each holds up to a chunk in memory and a connection to the object store


class CorruptObject(InternalError):
    """The object store's bytes do not have the digest in their name."""


@dataclass(frozen=True, slots=True)
class CachedFile:
    """An open, complete object and how it came: from the disk, fetched for this read, or for one before it."""

    file: BinaryIO
    size_bytes: int
    how: How


@dataclass(slots=True)
class Counts:
    """What the store did since its start."""

    hits: int = 0
    misses: int = 0
    joined: int = 0
    evicted: int = 0
    purged: int = 0
    damaged: int = 0
    corrupt: int = 0
    fetched_bytes: int = 0


class DiskStore:
    """One folder of objects in front of an object store. `run` must be running."""

    def __init__(self, folder: Path, policy: EvictionPolicy, origin: BlobStore) -> None:
        self._folder = Folder(folder)
        self._policy = policy
        self._origin = origin
        self._sizes: dict[str, int] = {}
        self._unverified: set[str] = set()
        self._flights: dict[str, asyncio.Task[How | AdaptiveGenError]] = {}
        self._unwanted: set[str] = set()  # of those on their way
        self._free_flights = asyncio.Semaphore(MAX_FLIGHTS)
        self._readers: Counter[str] = Counter()
        self._names = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cache-names")
        self._bytes = ThreadPoolExecutor(max_workers=2, thread_name_prefix="cache-bytes")
        self._group: asyncio.TaskGroup | None = None
        self.counts = Counts()

    @property
    def used_bytes(self) -> int:
        """Bytes of the complete objects on disk."""
        return sum(self._sizes.values())

    async def run(self, opened: asyncio.Event) -> None:
        """Take and scan the folder, set `opened`, own the flights until cancelled.

        Raises AlreadyRunning, StorageReadOnly, StorageFull or StorageFailure.
        """
        try:
            for found in await self._in(self._names, self._folder.open):
                victims = self._policy.admit(found.name, found.size_bytes, pinned=())
                if victims is None:
                    victims = [found.name]
                else:
                    self._sizes[found.name] = found.size_bytes
                    self._unverified.add(found.name)
                self.counts.evicted += len(victims)
                await self._drop(victims)
            async with asyncio.TaskGroup() as group:
                self._group = group
                opened.set()
                await asyncio.Event().wait()
        finally:
            self._group = None
            self._bytes.shutdown(wait=False)
            await asyncio.get_running_loop().run_in_executor(None, self._names.shutdown)
            self._folder.close()  # last: the next holder must not meet our changes

    @asynccontextmanager
    async def reading(self, key: str, sha256: str) -> AsyncIterator[CachedFile]:
        """The object, open, fetched from the object store if need be; it is not evicted while it is read.

        Raises NotFound, StorageFull when it cannot be kept, StorageFailure, DeadlineExceeded, CorruptObject.
        """
        self._readers[sha256] += 1
        try:
            cached = await self._get(key, sha256)
            try:
                yield cached
            finally:
                cached.file.close()
        finally:
            self._readers[sha256] -= 1
            if not self._readers[sha256]:
                del self._readers[sha256]

    async def origin_size(self, key: str) -> int:
        """Size of an object in the object store; raises NotFound."""
        return (await self._origin.head(key)).size_bytes

    async def stream_origin(
        self, key: str, sha256: str, *, start: int, end: int, size_bytes: int
    ) -> AsyncIterator[bytes]:
        """The bytes [start, end) straight from the object store, for when they cannot be kept.

        The name is a digest of the whole, so the whole is read, also for a part of it, and checked before the last
        piece of the part is given. Raises CorruptObject or StorageFailure: what was given until then is incomplete.
        """
        digest = hashlib.sha256()
        read_bytes = 0
        held = b""
        async for piece in self._origin.stream(key, chunk_bytes=CHUNK_BYTES):
            digest.update(piece)
            wanted = piece[max(0, start - read_bytes) : max(0, end - read_bytes)]
            read_bytes += len(piece)
            _check_not_longer(key, read_bytes, size_bytes)
            if wanted:
                if held:
                    yield held
                held = wanted
        if digest.hexdigest() != sha256:
            raise self._corrupt(key, digest.hexdigest())
        _check_not_shorter(key, read_bytes, size_bytes)
        yield held

    # ---- looking up -------------------------------------------------------------------------------------------

    async def _get(self, key: str, name: str) -> CachedFile:
        how: How = "hit"
        for _ in range(3):  # a file may be lost or damaged between two steps, and is then fetched again
            if name in self._sizes and name not in self._unverified:
                cached = await self._open(name, how)
                if cached is not None:
                    return cached
            how = await self._fly(key, name)
        raise StorageFailure(f"{key} was fetched and lost again")

    async def _open(self, name: str, how: How) -> CachedFile | None:
        size_bytes = self._sizes[name]
        file = await self._in(self._bytes, self._folder.read, name, size_bytes)
        if file is not None:
            self._policy.touch(name)
            if how == "hit":
                self.counts.hits += 1
            return CachedFile(file, size_bytes, how)
        if name in self._sizes:
            await self._forget_damaged(name)
        return None

    async def _fly(self, key: str, name: str) -> How:
        """Wait for the one flight of `name`, started here unless it is on its way."""
        flight = self._flights.get(name)
        joined = flight is not None
        if flight is None:
            if self._group is None:
                raise InternalError("the cache is not open")
            flight = self._flights[name] = self._group.create_task(self._flight(key, name))
        outcome = await asyncio.shield(flight)
        if isinstance(outcome, AdaptiveGenError):
            raise outcome
        if joined and outcome == "miss":
            self.counts.joined += 1
            return "joined"
        return outcome

    async def _flight(self, key: str, name: str) -> How | AdaptiveGenError:
        """Verify or fetch. An error is a value here: it is for those who wait, and must not end the group."""
        try:
            async with self._free_flights:
                if name in self._unverified and await self._verified(name):
                    return "hit"
                self.counts.misses += 1
                await self._fetch(key, name)
                return "miss"
        except AdaptiveGenError as exc:
            return exc
        finally:
            del self._flights[name]
            self._unwanted.discard(name)

    async def _verified(self, name: str) -> bool:
        """The first read after a start: compare the digest; a damaged file is put away, to be fetched again."""
        intact = await self._in(self._bytes, self._folder.is_intact, name)
        if intact and name in self._sizes:
            self._unverified.discard(name)
            return True
        await self._forget_damaged(name)
        return False

    # ---- fetching ---------------------------------------------------------------------------------------------

    async def _fetch(self, key: str, name: str) -> None:
        size_bytes = await self.origin_size(key)
        victims = self._policy.admit(name, size_bytes, pinned=self._readers.keys() | self._flights.keys())
        if victims is None:
            raise StorageFull(f"an object of {size_bytes} bytes does not fit into the cache now")
        try:
            self.counts.evicted += len(victims)
            await self._drop(victims)
            found = await self._download(key, name, size_bytes)
            if found != name:
                await self._in(self._names, partial(self._folder.quarantine, filling=True), name)
                raise self._corrupt(key, found)
            await self._in(self._names, self._folder.publish, name)
        except AdaptiveGenError:
            self._policy.remove(name)
            await self._in(self._names, self._folder.abandon, name)
            raise
        except BaseException:
            self._policy.remove(name)
            self._names.submit(self._folder.abandon, name)  # a cancellation does not wait; `run` does, at its end
            raise
        self._sizes[name] = size_bytes
        if name in self._unwanted:  # purged while it was fetched: who asks for it asks the object store again
            await self.drop([name])

    async def _download(self, key: str, name: str, size_bytes: int) -> str:
        """Fetch into the folder and sync; returns the digest."""
        digest = hashlib.sha256()
        fetched_bytes = 0
        file = await self._in(self._names, self._folder.start_filling, name)
        try:
            async for piece in self._origin.stream(key, chunk_bytes=CHUNK_BYTES):
                fetched_bytes += len(piece)
                _check_not_longer(key, fetched_bytes, size_bytes)
                digest.update(piece)
                await self._in(self._bytes, file.write, piece)
            if digest.hexdigest() == name:
                _check_not_shorter(key, fetched_bytes, size_bytes)
            await self._in(self._bytes, sync, file)
        finally:
            self.counts.fetched_bytes += fetched_bytes
            self._bytes.submit(file.close)
        return digest.hexdigest()

    def _corrupt(self, key: str, found: str) -> CorruptObject:
        self.counts.corrupt += 1
        get_logger().error("origin_corrupt", key=key, found_sha256=found)
        return CorruptObject(f"the object store's bytes of {key} have sha256 {found}")

    # ---- giving up --------------------------------------------------------------------------------------------

    async def drop(self, names: Collection[str]) -> None:
        """Let go of these objects, of those that are here; one that is being read is read to its end, and one that is
        on its way is not kept. Raises StorageFailure."""
        self._unwanted.update(name for name in names if name in self._flights)
        gone = [name for name in names if name in self._sizes]
        for name in gone:
            self._policy.remove(name)
            self.counts.purged += 1
        await self._drop(gone)

    async def drop_all(self) -> None:
        """Let go of everything."""
        await self.drop(list(self._sizes))

    async def _drop(self, victims: list[str]) -> None:
        for victim in victims:
            self._sizes.pop(victim, None)
            self._unverified.discard(victim)
        for victim in victims:
            await self._in(self._names, self._folder.remove, victim)

    async def _forget_damaged(self, name: str) -> None:
        self.counts.damaged += 1
        get_logger().warning("cached_file_damaged", sha256=name)
        self._sizes.pop(name, None)
        self._unverified.discard(name)
        self._policy.remove(name)
        await self._in(self._names, partial(self._folder.quarantine, filling=False), name)

    async def _in(
        self, pool: ThreadPoolExecutor, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs
    ) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, partial(work, *args, **kwargs))
        except OSError as exc:
            raise storage_error(exc, "the cache's folder") from exc


def _check_not_longer(key: str, found_bytes: int, said_bytes: int) -> None:
    """While reading: an object that outgrows the size the object store said is read no further."""
    if found_bytes > said_bytes:
        raise StorageFailure(f"{key} has more than the {said_bytes} bytes the object store said")


def _check_not_shorter(key: str, found_bytes: int, said_bytes: int) -> None:
    """After reading: right bytes under a wrong size would be sent with a wrong Content-Length."""
    if found_bytes < said_bytes:
        raise StorageFailure(f"{key} has {found_bytes} bytes; the object store said {said_bytes}")
