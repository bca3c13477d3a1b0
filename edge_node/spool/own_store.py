"""A folder of the spool as an object store, whose errors can be told from those of the centre's store.

What fails here says nothing about the way to the centre: it is this edge's own disk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from adaptivegen.blob.base import BlobStore, ObjectMeta
from adaptivegen.blob.store import open_store, storage_error
from adaptivegen.errors import AdaptiveGenError, DeadlineExceeded, StorageFailure, StorageFull, StorageReadOnly

Result = TypeVar("Result")


class SpoolFailure(StorageFailure):
    """The spool's own disk failed the operation, or did not answer."""


class SpoolFull(SpoolFailure, StorageFull):
    """No space is left on the spool's own disk."""


class SpoolReadOnly(SpoolFailure, StorageReadOnly):
    """The spool's own disk cannot be written."""


def open_own(folder: Path) -> BlobStore:
    """The store over a folder, which is made where it is missing and closed to others. Raises SpoolFailure."""
    with _own():
        url = folder.absolute().as_uri()  # quoted: `open_store` unquotes it
        store = OwnStore(open_store(url))
        try:
            folder.chmod(0o700)
        except OSError as exc:
            raise storage_error(exc, f"the folder {folder}") from exc
        return store


class OwnStore:
    """A store whose failures are `SpoolFailure`s; NotFound and InvalidRequest stay what they are."""

    def __init__(self, store: BlobStore) -> None:
        self.url = store.url
        self._store = store

    async def put(self, key: str, data: bytes) -> None:
        await _of_own(self._store.put(key, data))

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        return await _of_own(self._store.put_if_absent(key, data))

    async def put_file(self, key: str, path: Path) -> None:
        await _of_own(self._store.put_file(key, path))

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        return await _of_own(self._store.get(key, start=start, end=end))

    async def stream(
        self, key: str, *, start: int = 0, end: int | None = None, chunk_bytes: int = 256 * 1024
    ) -> AsyncIterator[bytes]:
        pieces = self._store.stream(key, start=start, end=end, chunk_bytes=chunk_bytes).__aiter__()
        while True:
            try:
                piece = await _of_own(pieces.__anext__())
            except StopAsyncIteration:
                return
            yield piece

    async def head(self, key: str) -> ObjectMeta:
        return await _of_own(self._store.head(key))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectMeta]:
        found = self._store.list(prefix, after=after).__aiter__()
        while True:
            try:
                meta = await _of_own(found.__anext__())
            except StopAsyncIteration:
                return
            yield meta

    async def delete(self, key: str) -> None:
        await _of_own(self._store.delete(key))

    async def close(self) -> None:
        await _of_own(self._store.close())


async def _of_own(work: Awaitable[Result]) -> Result:
    with _own():
        return await work


@contextmanager
def _own() -> Iterator[None]:
    """The failures of a store as the spool's."""
    try:
        yield
    except StorageFull as exc:
        raise SpoolFull(_said(exc)) from exc
    except StorageReadOnly as exc:
        raise SpoolReadOnly(_said(exc)) from exc
    except (StorageFailure, DeadlineExceeded) as exc:
        raise SpoolFailure(_said(exc)) from exc


def _said(exc: AdaptiveGenError) -> str:
    return f"this edge's spool: {exc.message}"
