"""Which object store an edge has proven: an empty folder that stands where a store was must not be taken for it.

A mount that is gone leaves such a folder, and whatever is handed over into that is lost when the mount is back. So the
store holds a mark, and this edge remembers it on its own disk.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.store import storage_error
from adaptivegen.errors import NotFound, StorageFailure
from adaptivegen.ids import new_token

KEY = "identity"  # of the mark, in the store
MOST_BYTES = 256


class Identity:
    """The mark of the store that was proven, in the file `path`; made with the first store that is."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self._path = path
        self._rng = rng
        self._known: str | None = None

    async def check(self, blob: BlobStore) -> None:
        """Raises StorageFailure for another store than was proven before, and what the store and the disk raise."""
        known = self._known = self._known or self._remembered()
        try:
            found = await _mark(blob)
        except NotFound as exc:
            if known:
                raise self._another(blob) from exc
            await blob.put_if_absent(KEY, new_token(prefix="st", rng=self._rng, bits=128).encode())
            found = await _mark(blob)
        if known and found != known:
            raise self._another(blob)
        if not known:
            self._remember(found)

    def _another(self, blob: BlobStore) -> StorageFailure:
        return StorageFailure(
            f"the object store {blob.url} is not the one that this edge has used: its mark is another or missing"
            f" (where it was replaced on purpose, delete {self._path.name} in the spool's folder)"
        )

    def _remembered(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace")[:MOST_BYTES]
        except FileNotFoundError:
            return ""
        except OSError as exc:
            raise storage_error(exc, f"{self._path}") from exc

    def _remember(self, mark: str) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(file, mark.encode())
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as exc:
            raise storage_error(exc, f"{self._path}") from exc
        self._known = mark


async def _mark(blob: BlobStore) -> str:
    return (await blob.get(KEY))[:MOST_BYTES].decode(errors="replace")
