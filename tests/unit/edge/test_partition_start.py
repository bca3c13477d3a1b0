"""How an edge starts when the store is not there, and what it says of itself while it is cut off."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.store import open_store
from adaptivegen.errors import StorageFailure, StoreUnsafe
from adaptivegen.jobs.record import new_record
from adaptivegen.rpc.video import Page
from edge_node import partition
from edge_node.api import render
from edge_node.settings import EdgeSettings
from edge_node.spool import blobs
from edge_node.spool.rules import CutOff
from tests.jobs import make_spec


def settings(tmp_path: Path, **changes: Any) -> EdgeSettings:
    values: dict[str, Any] = {"node_id": "edge-1", "auth": "loopback", "store_url": f"file://{tmp_path / 'store'}"}
    return EdgeSettings(**{**values, **changes})


async def test_without_a_store_an_edge_starts_with_a_spool_only(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    with pytest.raises(StorageFailure):
        await partition.first_reach(settings(tmp_path), random.Random(1))
    store, lost = await partition.first_reach(settings(tmp_path, spool_dir=tmp_path / "spool"), random.Random(1))
    assert isinstance(lost, StorageFailure)
    with pytest.raises(StorageFailure):
        await store.put_if_absent("a", b"")


async def test_with_a_store_its_self_test_is_passed_at_the_start(tmp_path: Path) -> None:
    store, lost = await partition.first_reach(settings(tmp_path, spool_dir=tmp_path / "spool"), random.Random(1))
    assert lost is None
    assert await store.put_if_absent("a", b"")


async def test_an_unsafe_store_is_refused_with_a_spool_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless:
        def __init__(self, store: BlobStore) -> None:
            self._store = store

        def __getattr__(self, name: str) -> object:
            return getattr(self._store, name)

        async def put_if_absent(self, key: str, data: bytes) -> bool:
            await self._store.put(key, data)
            return True

    monkeypatch.setattr(blobs, "open_store", lambda url: Careless(open_store(url)))
    with pytest.raises(StoreUnsafe):
        await partition.first_reach(settings(tmp_path, spool_dir=tmp_path / "spool"), random.Random(1))


@pytest.mark.parametrize(("name", "value"), [("spool_max_jobs", 0), ("spool_max_bytes", 1024), ("reach_s", 0)])
def test_limits_that_leave_no_spool_are_refused(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        settings(tmp_path, spool_dir=tmp_path, **{name: value})


def test_a_list_says_that_it_is_partial_only_when_it_is() -> None:
    assert "partial" not in render.page(Page([], has_more=False))
    assert render.page(Page([], has_more=False, partial=True))["partial"] is True


def test_an_edge_says_why_it_is_cut_off_and_what_waits() -> None:
    assert render.cut_off(None) == {}
    said = render.cut_off(CutOff(why="broker_unavailable", for_s=2.04, jobs=3, has_room=True))
    assert json.loads(json.dumps(said)) == {
        "cut_off": {"why": "broker_unavailable", "for_s": 2.0, "spooled_jobs": 3, "room": True}
    }


def test_a_record_begins_with_the_notes_of_its_spec() -> None:
    assert new_record(make_spec().model_copy(update={"notes": ("kept here",)})).notes == ("kept here",)
