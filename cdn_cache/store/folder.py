"""The cache's folder: files named by their SHA-256. Blocking; called from the store's threads.

<sha256>            a complete object; the name was given after its digest was checked and its bytes synced
<sha256>.filling    an object on its way; removed at the next start
quarantine/<sha256> what came instead of that object, kept to be looked at (the newest few)
.lock               held by the one process that uses the folder
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from adaptivegen.errors import AlreadyRunning

FILLING = ".filling"
MAX_QUARANTINED = 8
_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Found:
    """A file that was there at the start."""

    name: str
    size_bytes: int


class Folder:
    """One folder, one process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: int | None = None

    def open(self) -> list[Found]:
        """Take the folder, remove what a crash left half-written, list the rest, least recently used first.

        Raises AlreadyRunning when another process holds it, OSError when it cannot be made or read.
        """
        self._path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(lock)
            raise AlreadyRunning(f"another media cache uses {self._path}", param="dir") from exc
        self._lock = lock
        found = []
        for path in self._path.iterdir():
            if path.name.endswith(FILLING):
                path.unlink(missing_ok=True)
            elif _NAME.fullmatch(path.name) and path.is_file():
                status = path.stat()
                found.append((status.st_atime, Found(path.name, status.st_size)))
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]

    def close(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self, name: str, size_bytes: int) -> BinaryIO | None:
        """The object's file if it is there with that size. It can be read even after it is removed."""
        try:
            file = (self._path / name).open("rb")
        except FileNotFoundError:
            return None
        if os.fstat(file.fileno()).st_size == size_bytes:
            return file
        file.close()
        return None

    def is_intact(self, name: str) -> bool:
        """Whether the file's digest is its name."""
        try:
            with (self._path / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == name
        except FileNotFoundError:
            return False

    def start_filling(self, name: str) -> BinaryIO:
        """A file for the bytes of an object on its way."""
        return (self._path / f"{name}{FILLING}").open("wb")

    def publish(self, name: str) -> None:
        """Give a complete and synced file its name, durably."""
        (self._path / f"{name}{FILLING}").replace(self._path / name)
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def abandon(self, name: str) -> None:
        """Remove a file on its way."""
        (self._path / f"{name}{FILLING}").unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        """Remove an object."""
        (self._path / name).unlink(missing_ok=True)

    def quarantine(self, name: str, *, filling: bool) -> None:
        """Put away a file whose bytes are not what its name says; only the newest few are kept."""
        ward = self._path / "quarantine"
        ward.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            source = self._path / (f"{name}{FILLING}" if filling else name)
            source.replace(ward / name)
            os.utime(ward / name)
        kept = sorted(ward.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept[MAX_QUARANTINED:]:
            path.unlink(missing_ok=True)


def sync(file: BinaryIO) -> None:
    """Bring what was written to the disk."""
    file.flush()
    os.fdatasync(file.fileno())
