"""The `admin` command: finding the scheduler, exit codes without one."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adaptivegen.errors import AdaptiveGenError, InvalidRequest, NotFound
from cli.admin import app, find_scheduler


def write_endpoints(folder: Path, content: object) -> Path:
    (folder / "endpoints.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_the_address_given_comes_first_then_the_system_then_the_setting(tmp_path: Path) -> None:
    endpoints = [
        {"kind": "edge", "node_id": "edge-1", "grpc_address": "127.0.0.1:1"},
        {"kind": "scheduler", "node_id": "scheduler-1", "grpc_address": "127.0.0.1:2"},
    ]
    data = write_endpoints(tmp_path, {"endpoints": endpoints})
    assert find_scheduler("127.0.0.1:3", data, "127.0.0.1:4") == "127.0.0.1:3"
    assert find_scheduler("", data, "127.0.0.1:4") == "127.0.0.1:2"
    assert find_scheduler("", None, "127.0.0.1:4") == "127.0.0.1:4"


@pytest.mark.parametrize("address", ["nonsense", "host:", ":80", "host:0", "host:65536", "host:8o"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest):
        find_scheduler(address, None, "")


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
        find_scheduler("", write_endpoints(tmp_path, content), "")


def test_no_running_system_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no system runs"):
        find_scheduler("", tmp_path, "")


@pytest.mark.parametrize(
    "arguments", [["nodes"], ["jobs"], ["explain", "vid_1"], ["drain", "edge-1"], ["jobs", "--limit", "0"]]
)
def test_not_knowing_where_to_ask_is_bad_input(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments, env={"ADAPTIVEGEN_CLI_SCHEDULER": ""})
    assert result.exit_code == 2
