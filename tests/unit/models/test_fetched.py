"""Files of fetched versions that nothing needs are removed after a while, and what cannot be fetched again is not."""

import asyncio
import os
from pathlib import Path

import pytest

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.store import open_store
from adaptivegen.clock import ManualClock
from adaptivegen.models.card import card_digest, dump_card
from adaptivegen.models.fetched import MARK, need
from adaptivegen.models.pushed import DAY_NS, PREFIX, SWEEP_EVERY_S, push
from adaptivegen.models.registry import verified_files
from tests.unit.models.test_pushed import NAME, Node, operator, small

KEEP_DAYS = 30.0


@pytest.fixture
async def store(tmp_path: Path) -> BlobStore:
    return open_store(f"file://{tmp_path / 'store'}")


def later(node: Node, days: float) -> None:
    """So much time passes for the folder."""
    for path in node.folder.glob(f"*/{MARK}"):
        at_ns = path.stat().st_mtime_ns - round(days * DAY_NS)
        os.utime(path, ns=(at_ns, at_ns))


async def swept(node: Node, *needed: str) -> list[str]:
    return await node.pushed.remove_unneeded(needed, keep_days=KEEP_DAYS)


async def test_what_nobody_has_needed_for_long_is_removed_but_its_card_and_is_fetched_again_when_needed(
    store: BlobStore, tmp_path: Path
) -> None:
    await push(store, operator(tmp_path / "operator"), NAME)
    node = Node(store, tmp_path / "node")
    await node.pushed.ensure(NAME)
    later(node, KEEP_DAYS - 1)
    assert await swept(node) == []
    later(node, 2)
    assert await swept(node) == [NAME]
    assert [name for name in node.files() if "/" in name] == [f"{NAME}/card.json"]
    assert await swept(node) == []
    assert await node.pushed.ensure(NAME)
    assert verified_files(node.library.card(NAME), node.folder)
    assert await swept(node) == []


async def test_what_is_needed_by_any_process_on_the_folder_stays(store: BlobStore, tmp_path: Path) -> None:
    await small(store)
    node, other = Node(store, tmp_path / "node"), Node(store, tmp_path / "node")
    await node.pushed.ensure(NAME)
    later(node, 2 * KEEP_DAYS)
    assert await swept(other, NAME) == []  # and says so
    later(node, KEEP_DAYS - 1)
    assert await swept(node) == []
    later(node, 2)
    assert not await other.pushed.ensure(NAME)  # it is about to load what is there
    assert await swept(node) == []
    later(node, KEEP_DAYS + 1)
    assert await swept(node) == [NAME]


async def test_what_another_card_here_names_files_of_stays(store: BlobStore, tmp_path: Path) -> None:
    await push(store, operator(tmp_path / "operator"), NAME)
    node = Node(store, tmp_path / "node")
    await node.pushed.ensure(NAME)
    card = node.library.card(NAME)
    mine = card.model_copy(update={"name": "mine", "digest": card_digest("mine", card.version, card.files)})
    (node.folder / "mine").mkdir()
    (node.folder / "mine" / "card.json").write_text(dump_card(mine))
    later(node, 2 * KEEP_DAYS)
    assert await swept(node) == []
    assert verified_files(node.library.card("mine"), node.folder)
    (node.folder / "mine" / "card.json").unlink()
    assert await swept(node) == [NAME]


def test_where_it_cannot_be_noted_that_a_version_is_needed_it_can_still_be_used(tmp_path: Path) -> None:
    need(tmp_path, ["x" * 300])  # no file system has such a name


async def test_what_an_operator_put_there_by_hand_stays(store: BlobStore, tmp_path: Path) -> None:
    library = operator(tmp_path / "node")
    await push(store, library, NAME)
    node = Node(store, tmp_path / "node")
    before = node.files()
    assert not await node.pushed.ensure(NAME)
    assert await swept(node) == []
    assert node.files() == before


@pytest.mark.parametrize("left", ["version", "card", "file", "other file", "other version"])
async def test_what_could_not_be_fetched_again_as_it_is_stays(store: BlobStore, tmp_path: Path, left: str) -> None:
    card = await small(store)
    folder, sha256 = f"{PREFIX}{NAME}/{card.digest}", card.files["base"].sha256
    node = Node(store, tmp_path / "node")
    await node.pushed.ensure(NAME)
    later(node, KEEP_DAYS + 1)
    match left:
        case "version":
            await store.delete(f"{PREFIX}{NAME}/version")
        case "card":
            await store.delete(f"{folder}/card")
        case "file":
            await store.delete(f"{folder}/{sha256}")
        case "other file":
            await store.put(f"{folder}/{sha256}", b"longer weights")
        case _:
            await store.put(f"{PREFIX}{NAME}/version", b"f" * 64)
    assert await swept(node) == []
    assert (node.folder / NAME / "base.onnx").read_bytes() == b"weights"


async def test_a_folder_with_nothing_fetched_is_not_written_to(store: BlobStore, tmp_path: Path) -> None:
    node = Node(store, tmp_path / "node")
    assert await swept(node, NAME) == []
    assert list(node.folder.iterdir()) == []


async def test_a_process_sweeps_at_its_start_and_every_hour_and_what_it_needs_is_asked_anew(
    store: BlobStore, tmp_path: Path
) -> None:
    await small(store)
    node, clock, needed = Node(store, tmp_path / "node"), ManualClock(), {NAME}
    await node.pushed.ensure(NAME)
    weights = node.folder / NAME / "base.onnx"
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(node.pushed.sweep(lambda: set(needed), clock, keep_days=KEEP_DAYS))
        await asyncio.sleep(0.2)
        needed.clear()
        later(node, KEEP_DAYS + 1)
        await clock.advance(SWEEP_EVERY_S - 1)
        await asyncio.sleep(0.2)
        assert weights.exists()
        await clock.advance(2)
        while weights.exists():
            await asyncio.sleep(0.01)
        running.cancel()
