"""Files a client reads and writes: references, and clips that appear whole or not at all. Blocking."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from adaptivegen.errors import AdaptiveGenError, InvalidRequest, PayloadTooLarge, StorageFailure, StorageFull
from adaptivegen.sdk.routes import FilePart

Reference = str | os.PathLike[str] | bytes
MAX_REFERENCE_BYTES = 256 * 1024 * 1024  # against reading a disk image by mistake; an edge allows less


def choose_reference(image: Reference | None, video: Reference | None) -> Reference | None:
    """The one reference of a request; raises InvalidRequest when both kinds are given."""
    if image is not None and video is not None:
        raise InvalidRequest("image and video are both given; allowed: one of them", param="video")
    return image if image is not None else video


def read_reference(reference: Reference) -> FilePart:
    """An upload from a path or from bytes; raises InvalidRequest when the file cannot be read."""
    if isinstance(reference, bytes):
        return FilePart("reference", reference)
    path = Path(reference)
    try:
        if path.stat().st_size > MAX_REFERENCE_BYTES:
            raise PayloadTooLarge(f"{path} has over {MAX_REFERENCE_BYTES} bytes", param="input_reference")
        return FilePart(path.name, path.read_bytes())
    except OSError as exc:
        raise InvalidRequest.field("input_reference", str(path), f"a file that can be read ({exc.strerror})") from exc


class AtomicFile:
    """A file written beside its place and renamed into it by `commit`; anything else leaves the place as it was."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises InvalidRequest when no file can be made there, StorageFull or StorageFailure when the disk refuses."""
        self._path = Path(path)
        with translated(self._path):
            if self._path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a folder")
            # Not tempfile: its files are private to the user, a clip is an ordinary file.
            self._part = self._path.with_name(f".{self._path.name}.{secrets.token_hex(6)}.part")
            self.file: BinaryIO = self._part.open("x+b")

    def write(self, data: bytes) -> None:
        """Append; raises StorageFull or StorageFailure."""
        with translated(self._path):
            self.file.write(data)

    def commit(self) -> None:
        """Make it durable and visible under its name."""
        with translated(self._path):
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            self._part.replace(self._path)

    def close(self) -> None:
        """Remove what was not committed."""
        with contextlib.suppress(OSError):
            self.file.close()
        self._part.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file or nothing; raises as AtomicFile does."""
    target = AtomicFile(path)
    try:
        target.write(data)
        target.commit()
    finally:
        target.close()


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn OSError into our errors: a bad place is the caller's mistake, a full or broken disk is not."""
    try:
        yield
    except OSError as exc:
        raise _error(path, exc) from exc


def _error(path: Path, exc: OSError) -> AdaptiveGenError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"no space left to write {path}")
    if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS):
        return InvalidRequest.field("path", str(path), f"a file that can be written ({exc.strerror})")
    return StorageFailure(f"{path} cannot be written: {exc.strerror}")
