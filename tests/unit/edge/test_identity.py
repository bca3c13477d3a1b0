"""A store is known by its mark: an empty folder in its place is not taken for it."""

import random
from pathlib import Path

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.errors import StorageFailure
from edge_node.spool.blobs import ProvenStore
from edge_node.spool.identity import KEY, Identity

RNG = random.Random(4)


async def test_a_store_that_was_proven_is_known_again_and_another_is_not(tmp_path: Path) -> None:
    file, store, other = tmp_path / "spool" / "store", open_store("memory://"), open_store("memory://")
    await Identity(file, RNG).check(store)
    await Identity(file, RNG).check(store)  # another life
    for _ in range(2):
        with pytest.raises(StorageFailure, match="not the one"):
            await Identity(file, RNG).check(other)
    await other.put(KEY, b"st_other")
    with pytest.raises(StorageFailure, match="not the one"):
        await Identity(file, RNG).check(other)
    file.unlink()  # it was replaced on purpose
    await Identity(file, RNG).check(other)


async def test_edges_of_one_store_agree_on_its_mark(tmp_path: Path) -> None:
    store = open_store("memory://")
    for name in ("edge-1", "edge-2"):
        await Identity(tmp_path / name, random.Random(name)).check(store)
    assert (tmp_path / "edge-1").read_text() == (tmp_path / "edge-2").read_text()


async def test_a_folder_that_was_made_anew_where_the_store_was_is_no_store(tmp_path: Path) -> None:
    folder, mark = tmp_path / "store", tmp_path / "spool" / "store"
    await ProvenStore(folder.as_uri(), RNG, identity=mark).prove()
    folder.rename(tmp_path / "unmounted")
    again = ProvenStore(folder.as_uri(), RNG, identity=mark)  # a start makes the folder, and it works
    with pytest.raises(StorageFailure, match="not the one"):
        await again.prove()
    with pytest.raises(StorageFailure):
        await again.put("jobs/t/x/spec", b"")
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()
    (tmp_path / "unmounted").rename(folder)
    await again.prove()
