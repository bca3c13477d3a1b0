"""The object store over obstore: a local folder, S3, GCS, Azure or memory, chosen by URL.

Owns the translation of obstore's errors and the deadline. obstore makes atomic but not durable local files, so puts
into a folder go through `adaptivegen.blob.local`, in two threads of the store's own.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions
from obstore.store import LocalStore, MemoryStore, from_url

from adaptivegen.blob.base import BlobStore, ObjectMeta, check_key
from adaptivegen.blob.local import copy_object, write_object
from adaptivegen.errors import (
    AdaptiveGenError,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    SettingsInvalid,
    StorageFailure,
    StorageFull,
    StorageReadOnly,
)

Result = TypeVar("Result")
SLOWEST_BYTES_PER_S = 4 * 1024 * 1024  # what a large file may add to a deadline
_OS_ERROR = re.compile(r"os error (\d+)")
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def open_store(url: str, *, deadline_s: float = 10.0) -> BlobStore:
    """Open the store a URL names: file:///path, memory://, s3://bucket/prefix, gs://..., az://... .

    Raises SettingsInvalid for a URL that names no store, StorageReadOnly or StorageFailure for a folder that cannot
    be made.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return ObjectStore(url, MemoryStore(), deadline_s=deadline_s, root=None)
    if parts.scheme == "file":
        root = Path(unquote(parts.path))
        if parts.netloc or not root.is_absolute():
            raise SettingsInvalid(f"store_url is {url!r}; a folder is file:///absolute/path", param="store_url")
        with _translated("store", url):
            try:
                root.mkdir(parents=True, exist_ok=True)
            except OSError as exc:  # also one that says "no such file", as below /proc: no object is missing here
                raise storage_error(exc, f"the folder of the object store {url}") from exc
            return ObjectStore(url, LocalStore(root), deadline_s=deadline_s, root=root)
    if parts.scheme not in ("s3", "gs", "az", "abfs"):
        raise SettingsInvalid(
            f"store_url is {url!r}; allowed: file://, s3://, gs://, az://, memory://", param="store_url"
        )
    try:
        store = from_url(url, client_options={"timeout": f"{deadline_s:g}s"})
    except (exceptions.BaseError, ValueError) as exc:
        raise SettingsInvalid(f"store_url {url!r}: {_first_line(exc)}", param="store_url") from exc
    return ObjectStore(url, store, deadline_s=deadline_s, root=None)


class ObjectStore:
    """One store. `root` is set for a local folder."""

    def __init__(self, url: str, store: Any, *, deadline_s: float, root: Path | None) -> None:
        self.url = url
        self._store = store
        self._deadline_s = deadline_s
        self._root = root
        self._writers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="blob")
        self._looker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="blob-look")  # never behind a write

    async def put(self, key: str, data: bytes) -> None:
        check_key(key)
        deadline_s = self._deadline_s + len(data) / SLOWEST_BYTES_PER_S
        if self._root is not None:
            work = self._in_thread(write_object, self._root, key, data, exclusive=False)
            await self._call(key, work, deadline_s=deadline_s)
        else:
            await self._call(key, obstore.put_async(self._store, key, data), deadline_s=deadline_s)

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        check_key(key)
        if self._root is not None:
            return await self._call(key, self._in_thread(write_object, self._root, key, data, exclusive=True))
        try:
            await self._call(key, obstore.put_async(self._store, key, data, mode="create"))
        except _AlreadyThere:
            return False
        return True

    async def put_file(self, key: str, path: Path) -> None:
        check_key(key)
        try:
            size_bytes = await self._call(key, self._in_thread(os.path.getsize, path))
        except NotFound as exc:
            raise InvalidRequest.field("path", str(path), "a readable file") from exc
        deadline_s = self._deadline_s + size_bytes / SLOWEST_BYTES_PER_S
        if self._root is not None:
            await self._call(key, self._in_thread(copy_object, self._root, key, path), deadline_s=deadline_s)
        else:
            await self._call(key, obstore.put_async(self._store, key, path), deadline_s=deadline_s)

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        answer = await self._open(key, start, end)
        return b"" if answer is None else bytes(await self._call(key, answer.bytes_async()))

    async def stream(
        self, key: str, *, start: int = 0, end: int | None = None, chunk_bytes: int = 256 * 1024
    ) -> AsyncIterator[bytes]:
        answer = await self._open(key, start, end)
        if answer is None:
            return
        pieces = answer.stream(min_chunk_size=chunk_bytes).__aiter__()
        while True:
            try:
                piece = await self._call(key, pieces.__anext__())
            except StopAsyncIteration:
                return
            whole = bytes(piece)
            for offset in range(0, len(whole), chunk_bytes):  # some stores answer in one piece, whatever was asked
                yield whole[offset : offset + chunk_bytes]

    async def head(self, key: str) -> ObjectMeta:
        return _meta(await self._call(key, obstore.head_async(self._store, check_key(key))))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectMeta]:
        if prefix:
            check_key(prefix.removesuffix("/"))
        await self._check_root()
        pages = obstore.list(self._store, prefix or None, offset=after or None).__aiter__()
        while True:
            try:
                page = await self._call(prefix, pages.__anext__())
            except StopAsyncIteration:
                return
            for meta in page:
                yield _meta(meta)

    async def delete(self, key: str) -> None:
        try:
            await self._call(key, obstore.delete_async(self._store, check_key(key)))
        except NotFound:
            return

    async def close(self) -> None:
        self._writers.shutdown(wait=False)
        self._looker.shutdown(wait=False)

    async def _open(self, key: str, start: int, end: int | None) -> Any:
        """The answer to a read of [start, end), or None when there is nothing in it."""
        check_key(key)
        if start < 0 or (end is not None and end < start):
            raise InvalidRequest.field("range", (start, end), "0 <= start <= end")
        if start == end:
            await self.head(key)
            return None
        wanted = None if start == 0 and end is None else {"offset": start} if end is None else (start, end)
        options: Any = {"range": wanted} if wanted is not None else {}
        try:
            return await self._call(key, obstore.get_async(self._store, key, options=options))
        except StorageFailure:
            # A range wholly behind the end is an error that each kind of store words in its own way.
            if wanted is not None and (await self.head(key)).size_bytes <= start:
                return None
            raise

    async def _call(self, key: str, operation: Awaitable[Result], *, deadline_s: float | None = None) -> Result:
        limit_s = self._deadline_s if deadline_s is None else deadline_s
        try:
            with _translated(key, self.url):
                try:
                    async with asyncio.timeout(limit_s):
                        return await operation
                except TimeoutError as exc:
                    raise DeadlineExceeded(f"the object store did not answer for {key!r} in {limit_s:g} s") from exc
        except NotFound as exc:  # nothing is found where the whole folder is gone, either
            await self._check_root(exc)
            raise

    async def _check_root(self, cause: Exception | None = None) -> None:
        """Raise StorageFailure where the store's whole folder is gone."""
        if self._root is None:
            return
        with _translated(self.url, self.url):
            try:
                async with asyncio.timeout(self._deadline_s):
                    there = await asyncio.get_running_loop().run_in_executor(self._looker, self._root.is_dir)
            except TimeoutError as exc:
                raise DeadlineExceeded(f"the folder of the object store {self.url} does not answer") from exc
        if not there:
            raise StorageFailure(f"the folder of the object store {self.url} is gone") from cause

    async def _in_thread(self, work: Callable[..., Result], *args: Any, **options: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._writers, lambda: work(*args, **options))


class _AlreadyThere(Exception):
    """put_if_absent found the key."""


def _meta(meta: Any) -> ObjectMeta:
    return ObjectMeta(
        key=str(meta["path"]),
        size_bytes=int(meta["size"]),
        etag=meta["e_tag"],
        last_modified_ns=int(meta["last_modified"].timestamp() * 1e9),
    )


def _first_line(exc: BaseException) -> str:
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__


@contextmanager
def _translated(key: str, url: str) -> Iterator[None]:
    """obstore's and the system's errors as ours."""
    try:
        yield
    except AdaptiveGenError:
        raise
    except exceptions.AlreadyExistsError as exc:
        raise _AlreadyThere from exc
    except FileNotFoundError as exc:
        raise NotFound(f"no object {key!r}") from exc
    except (OSError, RuntimeError, exceptions.BaseError) as exc:  # RuntimeError: the threads of a closed store
        raise storage_error(exc, f"{key!r} in the object store {url}") from exc


def storage_error(exc: BaseException, what: str) -> StorageFailure:
    """The error of ours that says what `exc` says: full, not writable, or any other failure of `what`."""
    found = _OS_ERROR.search(str(exc))
    number = exc.errno if isinstance(exc, OSError) and exc.errno else int(found[1]) if found else 0
    said = f"{what}: {_first_line(exc)}"
    if number in _FULL:
        return StorageFull(f"no space left for {said}")
    if number in _READ_ONLY or isinstance(exc, (exceptions.PermissionDeniedError, PermissionError)):
        return StorageReadOnly(f"not permitted on {said}")
    return StorageFailure(f"failed on {said}")
