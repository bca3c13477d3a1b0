"""The command line as a whole: help, bad usage, and how errors end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adaptivegen import errors
from adaptivegen.errors import AdaptiveGenError
from cli import exits
from cli.main import main, one_line
from cli.places import data_dir

PROMPT = "a red circle"


@pytest.mark.parametrize(
    "args",
    [
        ["generate", PROMPT],
        ["generate", "-o", "x.mp4"],
        ["generate", PROMPT, "-o", "x.mp4", "--seed", "many"],
        ["generate", PROMPT, "-o", "x.mp4", "--colour", "red"],
        ["up", "--edges", "two"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == exits.BAD_INPUT
    assert "Error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["up", "--edges", "0"], "edges is 0"),
        (["up", "--workers", "99"], "workers is 99"),
        (["up", "--port", "70000"], "port is 70000"),
        (["generate", PROMPT, "-o", "{tmp}/none/x.mp4"], "--output"),
        (["generate", PROMPT, "-o", "{tmp}"], "--output"),
        (["generate", PROMPT, "-o", "{tmp}/x.mp4", "--draft-out", "{tmp}/x.mp4"], "--draft-out"),
        (["generate", PROMPT, "-o", "{tmp}/x.mp4", "--intent", "guess"], "--intent is 'guess'"),
        (["generate", PROMPT, "-o", "{tmp}/x.mp4", "--timeout", "0"], "--timeout is 0"),
        (["generate", PROMPT, "-o", "{tmp}/x.mp4", "--timeout", "nan"], "--timeout is nan"),
        (["generate", PROMPT, "-o", "{tmp}/x.mp4", "--edge", "ftp://edge"], "base_url is 'ftp://edge'"),
        (["generate", PROMPT, "-o", "{tmp}/x.mp4", "--edge", "http://e", "--image", "{tmp}/no.png"], "input_reference"),
        (
            ["generate", PROMPT, "-o", "{tmp}/x.mp4", "--edge", "http://e", "--image", "a", "--video", "b"],
            "one of them",
        ),
    ],
)
def test_bad_input_is_one_line_naming_the_option(
    args: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(tmp_path / "data")] if args[0] == "up" else []
    assert main([arg.format(tmp=tmp_path) for arg in args] + data) == exits.BAD_INPUT
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("error: ") and named in line] and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_no_running_system_is_said_with_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", PROMPT, "-o", str(tmp_path / "x.mp4"), "--data", str(tmp_path)]) == exits.UNAVAILABLE
    assert f"no system is running from {tmp_path}" in capsys.readouterr().err


def test_a_service_without_settings_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["edge"]) == exits.BAD_INPUT
    assert "ADAPTIVEGEN_EDGE_NODE_ID" in capsys.readouterr().err


def test_admin_gets_its_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["admin", "explain", "--help"]) == exits.OK
    assert "JOB" in capsys.readouterr().out


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == exits.OK
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InternalError("x"), 1),
        (errors.PayloadTooLarge("x"), 2),
        (errors.SettingsInvalid("x"), 2),
        (errors.Unauthenticated("x"), 2),
        (errors.NodeUnavailable("x"), 3),
        (errors.ResourceExhausted("x"), 3),
        (errors.StorageFull("x"), 3),
        (errors.DeadlineExceeded("x"), 4),
        (errors.GenerationFailed("x"), 5),
        (errors.AlreadyRunning("x"), 6),
        (errors.ModelNotFound("x"), 7),
        (errors.PreconditionFailed("x"), 7),
        (errors.Cancelled("x"), 130),
    ],
)
def test_each_error_has_its_exit_code(error: AdaptiveGenError, code: int) -> None:
    assert exits.exit_code(error) == code


def test_every_exit_code_is_documented() -> None:
    documented = {int(line.split()[0]) for line in (exits.__doc__ or "").splitlines() if line[:1].isdigit()}
    assert {exits.exit_code(cls("x")) for cls in errors.STATUS} <= documented


def test_an_error_is_one_line_with_when_to_try_again() -> None:
    assert one_line(errors.ResourceExhausted("full\nof  work", retry_after_s=2.0)) == "full of work (try again in 2 s)"


def test_the_default_folder_is_in_the_home_folder() -> None:
    assert data_dir(Path("~/.adaptivegen")) == Path.home() / ".adaptivegen"


def test_help_loads_no_service_and_no_client() -> None:
    heavy = ["httpx", "grpc", "nats", "torch", "onnxruntime", "numpy", "av", "starlette", "pydantic"]
    code = f"import sys, cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_place_the_demo_cannot_write_is_said_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["demo", "--out", str(tmp_path / "file")]) == exits.BAD_INPUT
    assert "path is" in capsys.readouterr().err
