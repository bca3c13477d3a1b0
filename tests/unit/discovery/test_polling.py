"""Following a source that can only be read, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from adaptivegen.clock import ManualClock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.static_file import StaticFile
from adaptivegen.errors import InvalidRequest

ONE = '{"endpoints": [{"kind": "edge", "node_id": "e", "http_url": "http://h"}]}'
EDGE = Endpoint("edge", "e", http_url="http://h")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@asynccontextmanager
async def following(path: Path, clock: ManualClock) -> AsyncIterator[list[list[Endpoint]]]:
    told: list[list[Endpoint]] = []

    async def tell(nodes: list[Endpoint]) -> None:
        told.append(nodes)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(StaticFile(path, clock, look_every_s=5).follow("edge", tell))
        await asyncio.sleep(0)
        yield told
        task.cancel()


async def test_each_list_that_is_new_is_told_once(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "nodes.json"
    path.write_text('{"endpoints": []}')
    async with following(path, clock) as told:
        await clock.advance(20)
        assert told == [[]]
        path.write_text(ONE)
        await clock.advance(20)
        assert told == [[], [EDGE]]


async def test_while_the_source_cannot_be_read_the_last_list_stands_and_that_is_said_once(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "nodes.json"
    path.write_text(ONE)
    with capture_logs() as lines:
        async with following(path, clock) as told:
            path.unlink()
            await clock.advance(60)
            assert told == [[EDGE]]
            path.write_text(ONE)
            await clock.advance(5)
            assert told == [[EDGE]]
    assert [line["event"] for line in lines] == ["nodes_not_read"]


async def test_what_cannot_be_a_kind_is_not_followed(tmp_path: Path, clock: ManualClock) -> None:
    async def tell(_: list[Endpoint]) -> None:
        raise AssertionError("told")

    with pytest.raises(InvalidRequest, match="kind is"):
        await StaticFile(tmp_path / "nodes.json", clock).follow("*", tell)
