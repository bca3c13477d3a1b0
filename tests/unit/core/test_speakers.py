"""Whose certificate may speak for which node."""

import json
from pathlib import Path

import pytest

from adaptivegen.errors import PermissionDenied, SettingsInvalid
from adaptivegen.speakers import Speakers, read_speakers


def written(folder: Path, content: object) -> Path:
    path = folder / "roles.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_certificate_speaks_for_the_node_it_names_and_for_no_other() -> None:
    speakers = Speakers()
    speakers.require(["edge-1.example", "edge-1"], "edge-1", field="edge_id")
    for names in (["edge-1"], ["edge-2.example"], []):
        with pytest.raises(PermissionDenied, match=r"edge_id is 'edge-2'.*allowed: a node that its") as caught:
            speakers.require(names, "edge-2", field="edge_id")
        assert caught.value.param == "edge_id"


def test_a_file_grants_names_further_nodes(tmp_path: Path) -> None:
    granted = {"fleet.example": ["edge-1", "edge-2"], "root.example": ["*"]}
    speakers = read_speakers(written(tmp_path, {"roles": {}, "nodes": granted}))
    assert speakers.may(["fleet.example"], "edge-2") and not speakers.may(["fleet.example"], "edge-3")
    assert speakers.may(["other.example", "root.example"], "worker-9")
    assert not speakers.may(["other.example"], "worker-9")


def test_every_certificate_may_be_let_speak_for_every_node_and_a_node_called_a_star_is_none(tmp_path: Path) -> None:
    assert read_speakers(written(tmp_path, {"nodes": {"*": ["*"]}})).may(["localhost"], "edge-1")
    assert not Speakers().may(["*"], "*")


def test_without_a_file_or_without_nodes_in_it_names_are_ids(tmp_path: Path) -> None:
    for speakers in (read_speakers(None), read_speakers(written(tmp_path, {"roles": {"ops": "admin"}}))):
        assert speakers.may(["edge-1"], "edge-1") and not speakers.may(["ops"], "edge-1")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        {"nodes": ["edge-1"]},
        {"nodes": {"a": "edge-1"}},
        {"nodes": {"a": ["Edge 1"]}},
        {"nodes": {"a": [1]}},
        {"nodes": {"a": None}},
        {"nodes": {"a": ["n"] * 10_001}},
    ],
)
def test_a_file_that_grants_no_nodes_is_refused_by_name(tmp_path: Path, content: object) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        read_speakers(written(tmp_path, content))
    assert caught.value.param == "roles_file"
