"""A model's file with wrong bytes of the right size, found by the process that loads it, and fetched again."""

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


async def test_a_node_whose_weights_were_damaged_serves_again_after_one_load(tmp_path: Path) -> None:
    operator, node = tmp_path / "operator", tmp_path / "node"
    operator.mkdir()
    node.mkdir()
    add_draft(operator, NAME)
    blob = open_store(f"file://{tmp_path / 'store'}")
    await push(blob, ModelLibrary(operator), NAME)
    library = ModelLibrary(node)
    pushed = PushedModels(blob, library, node, max_bytes=1024**3)
    await pushed.ensure(NAME)
    weights = node / NAME / "base.onnx"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))

    def open_runner(card: ModelCard) -> ModelRunner:
        return ModelRunner("edge_node.draft.child", [card.name, "1", str(node)], clock=SystemClock())

    models = ModelSet(lambda: (NAME,), library.card, open_runner, SystemClock(), pushed.ensure)
    await models.start()
    try:
        assert (models.loaded, weights.read_bytes() == good) == ((NAME,), True)
    finally:
        await models.close()
    weights.write_bytes(b"x" * len(good))
    await blob.delete(f"models-files/{NAME}/version")  # where it cannot be fetched its loading says why it fails
    models = ModelSet(lambda: (NAME,), library.card, open_runner, SystemClock(), pushed.ensure)
    with pytest.raises(ModelDigestMismatch, match=r"base\.onnx"):
        await models.start()
