"""The object store as everyone sees it. Keys are slash-separated; objects are whole and immutable once visible.

Guarantees: a put is atomic (readers see the old object, the new one or none) and durable when it returns; of any
number of concurrent `put_if_absent` on one key exactly one returns True. Every call ends within the store's deadline.
A put that raised may still have happened (the answer was lost): read back before relying on either.
Errors: NotFound, StorageFull, StorageReadOnly, StorageFailure, DeadlineExceeded; InvalidRequest for an illegal key.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adaptivegen.errors import InvalidRequest

_PART = re.compile(r"[A-Za-z0-9_.=-]{1,240}")  # a file name has 255 bytes, and a temporary one needs a suffix
MAX_KEY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """What is known of an object without its bytes."""

    key: str
    size_bytes: int
    etag: str | None
    last_modified_ns: int


class BlobStore(Protocol):
    """A bucket or a folder."""

    url: str

    async def put(self, key: str, data: bytes) -> None:
        """Write, replacing what is there; the deadline grows with the size."""
        ...

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write unless the key exists; True when this call created it."""
        ...

    async def put_file(self, key: str, path: Path) -> None:
        """Write the contents of a local file, replacing what is there; the deadline grows with the file's size."""
        ...

    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """The bytes [start, end), cut at the object's end; to the end when `end` is None."""
        ...

    def stream(
        self, key: str, *, start: int = 0, end: int | None = None, chunk_bytes: int = 256 * 1024
    ) -> AsyncIterator[bytes]:
        """The bytes [start, end) in pieces of at most `chunk_bytes`; the deadline counts per piece."""
        ...

    async def head(self, key: str) -> ObjectMeta:
        """Size and entity tag."""
        ...

    def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectMeta]:
        """All objects under the folder `prefix` (which ends in a slash; "" for all) whose keys sort behind `after`, in
        no order."""
        ...

    async def delete(self, key: str) -> None:
        """Remove; a missing key is fine."""
        ...

    async def close(self) -> None:
        """Release what the store holds."""
        ...


def check_key(key: str) -> str:
    """Return `key` if it is legal: parts of letters, digits and `_ . = -`, none of them `.` or `..`, no leading slash.

    Raises InvalidRequest. Blanks, control characters, NUL, `#` (temporary files) and look-alikes are thereby refused.
    """
    parts = key.split("/")
    legal = all(_PART.fullmatch(part) and part not in (".", "..") for part in parts)
    if not legal or len(key) > MAX_KEY_BYTES:
        raise InvalidRequest.field("key", key, "slash-separated parts of letters, digits and _ . = -")
    return key
