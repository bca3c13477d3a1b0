"""Endpoints from a file."""

from pathlib import Path

import pytest

from adaptivegen.clock import ManualClock
from adaptivegen.discovery.static_file import MAX_FILE_BYTES, StaticFile
from adaptivegen.errors import InvalidRequest, NodeUnavailable
from cli.system.data_dir import write_endpoints
from cli.system.layout import ProcessPlan

EDGE = '{"kind": "edge", "node_id": "e", "http_url": "http://h"}'


async def test_no_file_means_that_no_system_runs(tmp_path: Path) -> None:
    with pytest.raises(NodeUnavailable, match=r"no endpoints at .*endpoints\.json: No such file"):
        await StaticFile(tmp_path / "endpoints.json", ManualClock()).endpoints("edge")


async def test_a_changed_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text('{"endpoints": []}')
    discovery = StaticFile(path, ManualClock())
    assert await discovery.endpoints("edge") == []
    path.write_text(f'{{"endpoints": [{EDGE}]}}')
    assert [endpoint.node_id for endpoint in await discovery.endpoints("edge")] == ["e"]


async def test_what_up_writes_is_read(tmp_path: Path) -> None:
    listed = {"kind": "edge", "node_id": "edge-1", "http_url": "http://127.0.0.1:1", "grpc_address": "127.0.0.1:2"}
    write_endpoints(tmp_path, [ProcessPlan("edge-1", (), {}, "http", "127.0.0.1:1", stage=0, endpoint=listed)])
    (found,) = await StaticFile(tmp_path / "endpoints.json", ManualClock()).endpoints("edge")
    assert found.fields() == listed


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "endpoints.json"),
        ("{", "endpoints.json"),
        ("[" * 200_000, "endpoints.json"),
        ("\x00", "endpoints.json"),
        ("[]", "endpoints.json.endpoints"),
        ("{}", "endpoints.json.endpoints"),
        ('{"endpoints": {}}', "endpoints.json.endpoints"),
        ('{"endpoints": [3]}', "endpoints.json.endpoints[0]"),
        (f'{{"endpoints": [{EDGE}, {{"kind": "edge"}}]}}', "endpoints.json.endpoints[1].node_id"),
        (f'{{"endpoints": [{EDGE}, {EDGE}]}}', "endpoints.json.endpoints[1].node_id"),
        (" " * (MAX_FILE_BYTES + 1), "endpoints.json"),
    ],
)
async def test_a_bad_file_is_refused_by_field(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "endpoints.json"
    path.write_text(text)
    with pytest.raises(InvalidRequest) as caught:
        await StaticFile(path, ManualClock()).endpoints("edge")
    assert caught.value.param == named
