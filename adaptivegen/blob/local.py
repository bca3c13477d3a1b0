"""Writing objects into a local folder so that they survive a power cut. Blocking: runs in the store's own threads.

obstore's LocalStore writes `<key>#<n>` beside the key, then renames it (put) or hard-links it (create), and hides such
names from listings: atomic, but never synced. After a power cut the name can then be there with none of the bytes,
and a manifest like that could never be created again. So here the bytes are synced before the name appears, and the
folders up to the root after. The temporary names are the same, so what a crash leaves behind stays out of listings.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_object(root: Path, key: str, data: bytes, *, exclusive: bool) -> bool:
    """Write `data` under `key`; False, with nothing changed, when `exclusive` and the key exists. Raises OSError."""

    def fill(file: BinaryIO) -> None:
        file.write(data)

    return _write(root, key, fill, exclusive=exclusive)


def copy_object(root: Path, key: str, source: Path) -> None:
    """Write the contents of the file `source` under `key`, replacing what is there. Raises OSError."""

    def fill(file: BinaryIO) -> None:
        with source.open("rb") as opened:
            shutil.copyfileobj(opened, file, 1024 * 1024)

    _write(root, key, fill, exclusive=False)


def _write(root: Path, key: str, fill: Callable[[BinaryIO], None], *, exclusive: bool) -> bool:
    path = root / key
    _make_folders(path.parent, root)
    temporary, file = _open_temporary(path)
    renamed = False
    try:
        with file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        else:
            os.rename(temporary, path)
            renamed = True
    finally:
        if not renamed:  # else the name is free, and may be that of another writer's file by now
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    _sync_folders(path.parent, root)
    return True


def _make_folders(folder: Path, root: Path) -> None:
    """Make `folder` below `root`, never `root` itself: one that is gone (a disk that is not mounted) must not be taken
    for an empty store. Raises OSError."""
    if folder.is_dir():
        return
    if not root.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the folder of the object store is gone", str(root))
    folder.mkdir(parents=True, exist_ok=True)


def _open_temporary(path: Path) -> tuple[Path, BinaryIO]:
    for number in itertools.count(1):
        temporary = path.with_name(f"{path.name}#{number}")
        with contextlib.suppress(FileExistsError):
            return temporary, temporary.open("xb")
    raise AssertionError("unreachable: count has no end")


def _sync_folders(folder: Path, root: Path) -> None:
    """fsync `folder` and those above it up to `root`: new folders must survive a power cut as well."""
    for target in (folder, *folder.parents):
        descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if target == root:
            return
