"""The adapter: errors, deadlines, URLs; and what a local folder shows while and after a write fails."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore import exceptions
from obstore.store import MemoryStore

from adaptivegen.blob.store import ObjectStore, open_store, storage_error
from adaptivegen.errors import (
    AdaptiveGenError,
    DeadlineExceeded,
    NotFound,
    SettingsInvalid,
    StorageFailure,
    StorageFull,
    StorageReadOnly,
)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), StorageFull),
        (OSError(errno.EDQUOT, "Quota exceeded"), StorageFull),
        (OSError(errno.EROFS, "Read-only file system"), StorageReadOnly),
        (PermissionError(errno.EACCES, "Permission denied"), StorageReadOnly),
        (exceptions.GenericError("Unable to write: No space left on device (os error 28)"), StorageFull),
        (exceptions.GenericError("Unable to open: Read-only file system (os error 30)"), StorageReadOnly),
        (exceptions.PermissionDeniedError("403"), StorageReadOnly),
        (exceptions.GenericError("connection refused"), StorageFailure),
        (OSError(errno.EIO, "Input/output error"), StorageFailure),
    ],
)
def test_failures_are_told_apart(raised: Exception, expected: type[AdaptiveGenError]) -> None:
    error = storage_error(raised, "'k' in the store")
    assert type(error) is expected
    assert "'k'" in error.message


@pytest.mark.parametrize("url", ["", "ftp://x", "file://relative/path", "http://x", "file:relative"])
def test_urls_that_name_no_store_are_refused(url: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        open_store(url)
    assert caught.value.param == "store_url"


async def test_a_silent_store_ends_in_deadline_exceeded() -> None:
    class Silent(ObjectStore):
        async def put(self, key: str, data: bytes) -> None:
            await self._call(key, asyncio.get_running_loop().create_future())

    store = Silent("memory://", MemoryStore(), deadline_s=0.01, root=None)
    with pytest.raises(DeadlineExceeded, match=r"0\.01 s"):
        await store.put("k", b"x")


async def test_a_failed_write_leaves_nothing_visible(tmp_path: Path) -> None:
    """The write breaks off in the middle (file size limit), as it does when a disk is full."""
    store = open_store(f"file://{tmp_path}")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        for write in (store.put("a/k", b"x" * 5000), store.put_if_absent("a/k", b"x" * 5000)):
            with pytest.raises(StorageFailure):
                await write
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(NotFound):
        await store.get("a/k")
    assert os.listdir(tmp_path / "a") == []
    assert await store.put_if_absent("a/k", b"now it fits") is True
    await store.close()


async def test_a_failed_replacement_keeps_the_old_object(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    await store.put("k", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageFailure):
            await store.put("k", b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert await store.get("k") == b"old"
    await store.close()


async def test_what_a_crash_left_behind_is_not_listed_and_not_in_the_way(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "k#1").write_bytes(b"half of i")
    assert await store.put_if_absent("a/k", b"whole") is True
    await store.put("a/k", b"whole again")
    assert [meta.key async for meta in store.list("a/")] == ["a/k"]
    assert await store.get("a/k") == b"whole again"
    await store.close()


async def test_a_local_object_is_synced_before_its_name_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system call is observed here, not our own code: there is no other way to see a sync without a power cut."""
    store = open_store(f"file://{tmp_path}")
    order: list[str] = []
    real_sync, real_link = os.fsync, os.link

    def sync(descriptor: int) -> None:
        order.append("sync " + os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path))
        real_sync(descriptor)

    def link(*args: Any, **options: Any) -> None:
        order.append("link")
        real_link(*args, **options)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "link", link)
    await store.put_if_absent("jobs/t/spec", b"accepted")
    assert order == ["sync jobs/t/spec#1", "link", "sync jobs/t", "sync jobs", "sync ."]
    await store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; only root can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


async def test_a_full_disk_is_storage_full_and_shows_nothing(small_disk: Path) -> None:
    store = open_store(f"file://{small_disk}")
    with pytest.raises(StorageFull):
        await store.put("a/k", b"x" * 200_000)
    assert [meta async for meta in store.list("")] == []
    await store.put("a/small", b"fits")
    await store.close()


async def test_a_read_only_disk_is_storage_read_only(small_disk: Path) -> None:
    store = open_store(f"file://{small_disk}")
    await store.put("k", b"kept")
    make_read_only(small_disk)
    for write in (store.put("k", b"new"), store.put_if_absent("new/k", b"new"), store.delete("k")):
        with pytest.raises(StorageReadOnly):
            await write
    assert await store.get("k") == b"kept"
    await store.close()


async def test_a_store_whose_folder_is_gone_is_no_empty_store_and_is_not_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = open_store(f"file://{root}")
    await store.put("a/b", b"x")
    root.rename(tmp_path / "away")
    for call in (store.get("a/b"), store.head("a/b"), store.put("a/b", b"y"), store.put_if_absent("c", b"y")):
        with pytest.raises(StorageFailure, match="is gone"):
            await call
    with pytest.raises(StorageFailure):
        await store.delete("a/b")
    with pytest.raises(StorageFailure):
        [meta async for meta in store.list("a/")]
    assert not root.exists()
    (tmp_path / "away").rename(root)
    assert await store.get("a/b") == b"x"
