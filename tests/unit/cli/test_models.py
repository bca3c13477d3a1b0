"""`adaptivegen models push`: into a store, with an exit code that says what was wrong."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.models import app
from tests.added_models import add_broken, add_draft

NAME = "pocket-draft-2"


def test_a_version_is_pushed_into_the_store_of_a_system_of_this_machine(tmp_path: Path) -> None:
    models, data = tmp_path / "models", tmp_path / "data"
    models.mkdir()
    card = add_draft(models, NAME)
    result = CliRunner().invoke(app, ["push", NAME, "--models-dir", str(models), "--data", str(data)])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["model"], told["digest"]) == (NAME, card.digest)
    stored = data / "store" / "models-files" / NAME
    assert (stored / "version").read_text() == card.digest
    assert len(list((stored / card.digest).iterdir())) == len(card.files) + 1


@pytest.mark.parametrize(
    ("name", "more", "code", "said"),
    [
        ("no-such-model", [], 7, "no-such-model"),
        ("pocket-broken", [], 5, "sha256"),
        (NAME, ["--store", "file:///nowhere"], 2, "--store"),
    ],
)
def test_what_cannot_be_pushed_is_said(tmp_path: Path, name: str, more: list[str], code: int, said: str) -> None:
    add_broken(tmp_path, "pocket-broken")
    command = ["push", name, "--models-dir", str(tmp_path), "--data", str(tmp_path / "data"), *more]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, said in result.stderr) == (code, True), result.output
    assert not (tmp_path / "data" / "store" / "models-files").exists()
