"""`adaptivegen models push`: into a store, with an exit code that says what was wrong."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adaptivegen.blob.store import open_store
from adaptivegen.clock import SystemClock
from cli.models import app
from scheduler.audit import Audit
from scheduler.steady import SteadyTime
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


async def test_who_pushed_what_is_in_the_audit_log_as_is_what_could_not_be_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    models, data = tmp_path / "models", tmp_path / "data"
    models.mkdir()
    card = add_draft(models, NAME)
    for name in (NAME, "no-such-model"):
        await asyncio.to_thread(
            CliRunner().invoke, app, ["push", name, "--models-dir", str(models), "--data", str(data)]
        )
    blob = open_store(f"file://{data / 'store'}")
    failed, pushed = await Audit(blob, node_id="sched-1", time=SteadyTime(SystemClock())).entries(10)
    await blob.close()
    assert (pushed.action, pushed.target, pushed.by) == ("models-push", NAME, "user ada")
    assert (pushed.outcome, pushed.scheduler) == (f"done: {card.digest}", "push")
    assert (failed.target, failed.outcome.partition(":")[0]) == ("no-such-model", "model_not_found")


@pytest.mark.parametrize("why", [KeyError("uid"), OSError("no entry")])
def test_a_user_without_a_name_can_push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: Exception) -> None:
    def nobody() -> str:
        raise why

    monkeypatch.setattr("getpass.getuser", nobody)
    add_draft(tmp_path, NAME)
    command = ["push", NAME, "--models-dir", str(tmp_path), "--data", str(tmp_path / "data")]
    assert CliRunner().invoke(app, command).exit_code == 0


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
