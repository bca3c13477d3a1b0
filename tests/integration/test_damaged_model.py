"""A model's file with wrong bytes of the right size, found by the process that loads it, and fetched again."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from adaptivegen.blob.store import open_store
from adaptivegen.clock import SystemClock
from adaptivegen.errors import ModelDigestMismatch
from adaptivegen.generation.kept import ModelSet
from adaptivegen.generation.runner import ModelRunner
from adaptivegen.models.card import ModelCard
from adaptivegen.models.pushed import PushedModels, push
from adaptivegen.models.registry import ModelLibrary
from tests.added_models import add_draft

NAME = "pocket-draft-2"


class Node:
    """A node that has fetched a version which was pushed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "node"
        self.folder.mkdir()
        self.blob = open_store(f"file://{folder / 'store'}")
        self.library = ModelLibrary(self.folder)
        self.pushed = PushedModels(self.blob, self.library, self.folder, max_bytes=1024**3)
        self.weights = self.folder / NAME / "base.onnx"

    def models(self) -> ModelSet:
        return ModelSet(lambda: (NAME,), self.library.card, self._open, SystemClock(), self.pushed.ensure)

    def _open(self, card: ModelCard) -> ModelRunner:
        return ModelRunner("edge_node.draft.child", [card.name, "1", str(self.folder)], clock=SystemClock())


@pytest.fixture
async def node(tmp_path: Path) -> Node:
    operator = tmp_path / "operator"
    operator.mkdir()
    add_draft(operator, NAME)
    made = Node(tmp_path)
    await push(made.blob, ModelLibrary(operator), NAME)
    await made.pushed.ensure(NAME)
    return made


async def test_a_node_whose_weights_were_damaged_serves_again_after_one_load(node: Node) -> None:
    good = node.weights.read_bytes()
    node.weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    models = node.models()
    await models.start()
    try:
        assert (models.loaded, node.weights.read_bytes() == good) == ((NAME,), True)
    finally:
        await models.close()
    node.weights.write_bytes(b"x" * len(good))
    await node.blob.delete(f"models-files/{NAME}/version")  # where it cannot be fetched its loading says why it fails
    with pytest.raises(ModelDigestMismatch, match=r"base\.onnx"):
        await node.models().start()


@pytest.mark.parametrize("damage", ["other bytes", "gone", "card"])
async def test_a_model_whose_files_went_bad_while_it_was_loaded_is_mended_when_its_process_died(
    node: Node, damage: str
) -> None:
    good = node.weights.read_bytes()
    models = node.models()
    await models.start()
    running = asyncio.get_running_loop().create_task(models.run())
    try:
        first = models.main.runner.pid
        assert first is not None
        if damage == "card":
            (node.folder / NAME / "card.json").write_bytes(b"{")
        elif damage == "gone":
            node.weights.unlink()
        else:
            node.weights.write_bytes(b"x" * len(good))
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(40):
            while models.main.runner.pid in (None, first) or not models.ready:
                await asyncio.sleep(0.05)
        assert node.weights.read_bytes() == good
    finally:
        running.cancel()
        await asyncio.wait({running})
        await models.close()
