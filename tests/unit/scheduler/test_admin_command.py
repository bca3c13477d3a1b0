"""The `admin` command: finding the scheduler, exit codes without one."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adaptivegen.errors import AdaptiveGenError, InvalidRequest, NotFound
from cli.admin import app
from cli.admin_ask import find_scheduler


def write_endpoints(folder: Path, content: object) -> Path:
    (folder / "endpoints.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_the_address_given_comes_first_then_the_system_then_the_setting(tmp_path: Path) -> None:
    endpoints = [
        {"kind": "edge", "node_id": "edge-1", "grpc_address": "127.0.0.1:1"},
        {"kind": "scheduler", "node_id": "scheduler-1", "grpc_address": "127.0.0.1:2"},
    ]
    data = write_endpoints(tmp_path, {"endpoints": endpoints})
    nowhere = tmp_path / "nowhere"
    assert find_scheduler("127.0.0.1:3", data, "127.0.0.1:4", usual=nowhere) == "127.0.0.1:3"
    assert find_scheduler("", data, "127.0.0.1:4", usual=nowhere) == "127.0.0.1:2"
    assert find_scheduler("", None, "127.0.0.1:4", usual=data) == "127.0.0.1:4"
    assert find_scheduler("", None, "", usual=data) == "127.0.0.1:2"


@pytest.mark.parametrize("address", ["nonsense", "host:", ":80", "host:0", "host:65536", "host:8o"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest):
        find_scheduler(address, None, "", usual=Path("/nowhere"))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{not json", InvalidRequest),
        ([], InvalidRequest),
        ({"endpoints": [{"kind": "scheduler"}]}, InvalidRequest),
        ({"endpoints": []}, NotFound),
    ],
)
def test_a_bad_list_of_endpoints_is_refused(tmp_path: Path, content: object, error: type[AdaptiveGenError]) -> None:
    with pytest.raises(error):
        find_scheduler("", write_endpoints(tmp_path, content), "", usual=Path("/nowhere"))


def test_no_running_system_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no system runs"):
        find_scheduler("", tmp_path, "", usual=Path("/nowhere"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["nodes"],
        ["jobs"],
        ["predictions"],
        ["explain", "vid_1"],
        ["drain", "edge-1"],
        ["pools"],
        ["scale", "default", "2"],
    ],
)
def test_no_system_ends_with_its_exit_code(tmp_path: Path, arguments: list[str]) -> None:
    assert CliRunner().invoke(app, [*arguments, "--data", str(tmp_path)]).exit_code == 7


@pytest.mark.parametrize(
    "arguments",
    [["nodes", "--scheduler", "nonsense"], ["jobs", "--limit", "0"], ["explain"], ["bogus"], ["scale", "p", "-1"]],
)
def test_bad_input_ends_with_its_exit_code(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2
