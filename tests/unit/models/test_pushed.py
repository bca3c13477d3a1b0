"""Versions of models through the object store: whole and checked at the other end, or not there at all."""

import asyncio
import hashlib
import sys
from pathlib import Path

import pytest

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.store import open_store
from adaptivegen.clock import ManualClock
from adaptivegen.errors import (
    Conflict,
    InvalidRequest,
    ModelDigestMismatch,
    ModelNotFound,
    PayloadTooLarge,
    StorageFailure,
)
from adaptivegen.models.card import CardFile, ModelCard, card_digest, dump_card
from adaptivegen.models.fetched import MARK
from adaptivegen.models.pushed import LOOK_EVERY_S, MISSED_FOR_S, PREFIX, PushedModels, push
from adaptivegen.models.registry import ModelLibrary, load_card, verified_files
from tests.added_models import add_draft
from tests.cards import draft_card

NAME, MOST = "pocket-draft-2", 1024**3


class Node:
    """A node's own folder of models."""

    def __init__(self, blob: BlobStore, folder: Path, *, max_bytes: int = MOST) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.library = ModelLibrary(folder)
        self.pushed = PushedModels(blob, self.library, folder, max_bytes=max_bytes)

    def files(self) -> list[str]:
        """All but the marks of what was fetched."""
        paths = [path for path in self.folder.rglob("*") if path.is_file() and path.name != MARK]
        return sorted(str(path.relative_to(self.folder)) for path in paths)


@pytest.fixture
async def store(tmp_path: Path) -> BlobStore:
    return open_store(f"file://{tmp_path / 'store'}")


def operator(folder: Path) -> ModelLibrary:
    """Of whoever has made the version."""
    folder.mkdir()
    add_draft(folder, NAME)
    return ModelLibrary(folder)


async def pushed(store: BlobStore, folder: Path) -> ModelCard:
    return await push(store, operator(folder), NAME)


async def small(store: BlobStore, *, path: str = f"{NAME}/base.onnx", data: bytes = b"weights") -> ModelCard:
    """A version of one small file, as its card says, pushed by hand."""
    files = {"base": CardFile(path=path, sha256=hashlib.sha256(b"weights").hexdigest(), bytes=7)}
    card = draft_card(name=NAME, files=files, digest=card_digest(NAME, "1.0.0", files))
    folder = f"{PREFIX}{NAME}/{card.digest}"
    await store.put(f"{folder}/{files['base'].sha256}", data)
    await store.put(f"{folder}/card", dump_card(card).encode())
    await store.put(f"{PREFIX}{NAME}/version", card.digest.encode())
    return card


async def test_a_version_arrives_whole_with_the_digest_it_was_made_with(store: BlobStore, tmp_path: Path) -> None:
    sent = await pushed(store, tmp_path / "operator")
    assert sent.digest == load_card(NAME, tmp_path / "operator").digest
    assert {Path(file.path).parent.name for file in sent.files.values()} == {NAME}
    node = Node(store, tmp_path / "node")
    await node.pushed.ensure(NAME)
    card = node.library.card(NAME)
    assert card == sent and set(verified_files(card, node.folder)) == set(sent.files)
    assert not [name for name in node.files() if name.endswith(".new")]
    await node.pushed.ensure(NAME)  # nothing to do


async def test_pushing_again_is_fine_and_another_version_of_that_name_is_refused(
    store: BlobStore, tmp_path: Path
) -> None:
    first = await pushed(store, tmp_path / "operator")
    assert await push(store, ModelLibrary(tmp_path / "operator"), NAME) == first
    await store.put(f"{PREFIX}{NAME}/version", b"f" * 64)
    with pytest.raises(Conflict, match="pushed before"):
        await push(store, ModelLibrary(tmp_path / "operator"), NAME)
    with pytest.raises(ModelNotFound):
        await push(store, ModelLibrary(), "no-such-model")


async def test_what_was_never_pushed_is_the_callers_to_miss(store: BlobStore, tmp_path: Path) -> None:
    node = Node(store, tmp_path / "node")
    await node.pushed.ensure(NAME)
    await node.pushed.ensure_card(NAME)
    assert node.files() == []
    await PushedModels(store, node.library, None, max_bytes=MOST).ensure(NAME)  # without a folder nothing is fetched


@pytest.mark.parametrize("data", [b"weightz", b"weights and more", b"weigh", b""])
async def test_bytes_that_are_not_the_cards_are_not_kept(store: BlobStore, tmp_path: Path, data: bytes) -> None:
    await small(store, data=data)
    node = Node(store, tmp_path / "node")
    if data.startswith(b"weights"):  # no more is read than the card says
        await node.pushed.ensure(NAME)
        assert (node.folder / NAME / "base.onnx").read_bytes() == b"weights"
        return
    with pytest.raises(ModelDigestMismatch):
        await node.pushed.ensure(NAME)
    assert node.files() == []


@pytest.mark.parametrize(
    "path", ["pocket-draft/base.onnx", f"{NAME}/deep/base.onnx", f"{NAME}/card.json", f"{NAME}/.x", "base.onnx"]
)
async def test_a_card_that_would_write_elsewhere_is_refused(store: BlobStore, tmp_path: Path, path: str) -> None:
    await small(store, path=path)
    node = Node(store, tmp_path / "node")
    with pytest.raises(InvalidRequest, match="path"):
        await node.pushed.ensure(NAME)
    assert node.files() == []


async def test_what_is_too_large_or_damaged_is_refused_before_anything_is_fetched(
    store: BlobStore, tmp_path: Path
) -> None:
    card = await small(store)
    node = Node(store, tmp_path / "node", max_bytes=6)
    with pytest.raises(PayloadTooLarge, match="allowed: 6"):
        await node.pushed.ensure(NAME)
    key = f"{PREFIX}{NAME}/{card.digest}/card"
    for damaged in (b"\xff{", b"{}", dump_card(card).replace(NAME, "another").encode(), b" " * (1024 * 1024 + 1)):
        await store.put(key, damaged)
        with pytest.raises((InvalidRequest, ModelDigestMismatch)):
            await node.pushed.ensure(NAME)
    assert node.files() == []


async def test_a_node_with_the_card_alone_gets_the_files_when_it_is_to_run_them(
    store: BlobStore, tmp_path: Path
) -> None:
    await small(store)
    node = Node(store, tmp_path / "node")
    await node.pushed.ensure_card(NAME)
    assert node.files() == [f"{NAME}/card.json"]
    (node.folder / NAME / "base.onnx").write_bytes(b"weigh")  # what a fetch that died may leave by another's hand
    await node.pushed.ensure(NAME)
    assert node.files() == [f"{NAME}/base.onnx", f"{NAME}/card.json"]


async def test_cards_of_what_is_in_force_are_kept_here_and_asked_for_seldom(store: BlobStore, tmp_path: Path) -> None:
    node, clock = Node(store, tmp_path / "node"), ManualClock()
    get, asked = store.get, asyncio.Event()

    async def noted(key: str, *, start: int = 0, end: int | None = None) -> bytes:
        try:
            return await get(key, start=start, end=end)
        finally:
            asked.set()

    store.get = noted  # type: ignore[method-assign]
    keeping = asyncio.get_running_loop().create_task(node.pushed.keep_cards(lambda: (NAME,), clock))
    async with asyncio.timeout(10):
        await asked.wait()
    await small(store)
    await clock.advance(LOOK_EVERY_S)
    await asyncio.sleep(0.05)
    assert node.files() == []  # it was missed a moment ago
    async with asyncio.timeout(10):
        while node.files() != [f"{NAME}/card.json"]:  # under its own name
            await clock.advance(MISSED_FOR_S)
            await asyncio.sleep(0.01)
    assert node.library.card(NAME).name == NAME
    keeping.cancel()


async def test_nodes_that_share_a_folder_do_not_write_into_one_anothers_files(store: BlobStore, tmp_path: Path) -> None:
    sent = await pushed(store, tmp_path / "operator")
    nodes = [Node(store, tmp_path / "shared") for _ in range(3)]
    await asyncio.gather(*(node.pushed.ensure(NAME) for node in nodes))
    assert set(verified_files(nodes[0].library.card(NAME), nodes[0].folder)) == set(sent.files)
    assert len(nodes[0].files()) == len(sent.files) + 1


async def test_a_folder_that_cannot_be_written_is_a_failure_of_this_node(store: BlobStore, tmp_path: Path) -> None:
    await small(store)
    node = Node(store, tmp_path / "node")
    occupy(node.folder / NAME)
    for fetch in (node.pushed.ensure, node.pushed.ensure_card):
        with pytest.raises(StorageFailure):
            await fetch(NAME)


def occupy(path: Path) -> None:
    path.write_text("a file where the folder is to be")


async def test_a_file_of_the_right_size_with_wrong_bytes_is_brought_again_where_that_is_said(
    store: BlobStore, tmp_path: Path
) -> None:
    await small(store)
    node = Node(store, tmp_path / "node")
    assert await node.pushed.ensure(NAME)
    assert not await node.pushed.ensure(NAME)
    path = node.folder / NAME / "base.onnx"
    path.write_bytes(b"weightz")
    assert not await node.pushed.ensure(NAME)  # reading all weights at each start would take as long as loading them
    assert await node.pushed.ensure(NAME, True)
    assert path.read_bytes() == b"weights"
    assert not await node.pushed.ensure(NAME, True)  # all is as its card says


async def test_a_version_that_an_operator_has_put_there_by_hand_is_not_replaced(
    store: BlobStore, tmp_path: Path
) -> None:
    await small(store)
    node = Node(store, tmp_path / "node")
    add_draft(node.folder, NAME)
    before = {name: (node.folder / name).read_bytes() for name in node.files()}
    assert not await node.pushed.ensure(NAME, True)
    assert {name: (node.folder / name).read_bytes() for name in node.files()} == before
    assert not await node.pushed.ensure("pocket-draft", True)  # nor one that came along, or that nobody pushed


KILLED = """
import sys
from pathlib import Path
from adaptivegen.models.pushed import _Arriving
arriving = _Arriving(Path(sys.argv[1]))
arriving.open()
arriving.write(b"weig")
print("begun", flush=True)
sys.stdin.read()
"""


async def test_the_part_of_a_download_that_was_killed_goes_and_that_of_one_under_way_stays(
    store: BlobStore, tmp_path: Path
) -> None:
    await small(store)
    first = Node(store, tmp_path / "node")
    path = first.folder / NAME / "base.onnx"
    processes = []
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, str(path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"begun\n"
        processes.append(process)
    assert len(first.files()) == 2
    processes[0].kill()
    await processes[0].wait()
    for _ in range(2):
        node = Node(store, first.folder)  # a new life of the node; later also where nothing is to be fetched
        await node.pushed.ensure(NAME)
        assert len([name for name in node.files() if name.endswith(".new")]) == 1
    processes[1].kill()
    await processes[1].wait()
    await Node(store, first.folder).pushed.ensure(NAME)
    assert first.files() == [f"{NAME}/base.onnx", f"{NAME}/card.json"]
