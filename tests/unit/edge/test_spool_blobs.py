"""A store that must first prove itself, and one that knows what it holds."""

import random
from pathlib import Path

import pytest

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.store import open_store
from adaptivegen.errors import StorageFailure, StoreUnsafe
from edge_node.spool import blobs
from edge_node.spool.blobs import MeteredStore, ProvenStore


def away(folder: Path) -> Path:
    """A store's folder that is a file."""
    folder.write_text("no folder")
    return folder


async def test_nothing_is_read_or_written_before_the_store_was_reached_and_tested(tmp_path: Path) -> None:
    folder = away(tmp_path / "store")
    store = ProvenStore(f"file://{folder}", random.Random(1))
    with pytest.raises(StorageFailure):
        await store.prove()
    folder.unlink()
    for call in (store.put_if_absent("a", b""), store.put("a", b""), store.get("a"), store.head("a")):
        with pytest.raises(StorageFailure, match="has not been reached"):
            await call
    with pytest.raises(StorageFailure):
        [meta async for meta in store.list("")]
    await store.prove()
    assert await store.put_if_absent("a", b"x")
    assert await store.get("a") == b"x"
    assert [meta.key async for meta in store.list("")] == ["a"]
    await store.close()


async def test_a_store_that_lets_two_creates_win_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless:
        def __init__(self, store: BlobStore) -> None:
            self._store = store

        def __getattr__(self, name: str) -> object:
            return getattr(self._store, name)

        async def put_if_absent(self, key: str, data: bytes) -> bool:
            await self._store.put(key, data)
            return True

    monkeypatch.setattr(blobs, "open_store", lambda url: Careless(open_store(url)))
    store = ProvenStore(f"file://{tmp_path}", random.Random(1))
    for _ in range(2):
        with pytest.raises(StoreUnsafe):
            await store.prove()
        with pytest.raises(StorageFailure):
            await store.put_if_absent("a", b"")


async def test_sizes_are_those_of_what_is_there(tmp_path: Path) -> None:
    store = MeteredStore(open_store(f"file://{tmp_path}"))
    await store.put("a/b", b"123")
    await store.put("a/b", b"12345")
    assert await store.put_if_absent("c", b"1")
    assert not await store.put_if_absent("c", b"1234")
    assert (store.sizes, store.total_bytes) == ({"a/b": 5, "c": 1}, 6)
    await store.delete("a/b")
    await store.delete("a/b")
    assert (store.sizes, store.total_bytes) == ({"c": 1}, 1)
    again = MeteredStore(open_store(f"file://{tmp_path}"))
    assert [meta.key for meta in await again.measure()] == ["c"]
    assert (again.sizes, again.total_bytes) == ({"c": 1}, 1)
