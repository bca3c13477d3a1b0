"""Which source of endpoints a setting names."""

import json
from pathlib import Path

import pytest

from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.nats_kv import NatsDiscovery
from adaptivegen.discovery.source import open_discovery
from adaptivegen.errors import SettingsInvalid

ENDPOINT = Endpoint("scheduler", "s1", grpc_address="127.0.0.1:7000")


def test_the_broker_is_the_source_by_name() -> None:
    clock = ManualClock()
    assert isinstance(open_discovery("nats", MemoryBus(clock), clock), NatsDiscovery)


async def test_a_file_is_the_source_by_its_path_and_nobody_registers_in_it(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "a:b.json"
    path.write_text(json.dumps({"endpoints": [ENDPOINT.fields()]}))
    source = open_discovery(f"static:{path}", MemoryBus(clock), clock)
    await source.register(Endpoint("edge", "e1", http_url="http://127.0.0.1:1"))
    assert await source.endpoints("scheduler") == [ENDPOINT]
    assert await source.endpoints("edge") == []


@pytest.mark.parametrize("setting", ["", "NATS", "nats ", "static", "static:", "consul", "consul://127.0.0.1:8500"])
def test_anything_else_is_refused_with_what_is_allowed(setting: str) -> None:
    clock = ManualClock()
    with pytest.raises(SettingsInvalid, match=r"static:<path.*Consul comes with a later version"):
        open_discovery(setting, MemoryBus(clock), clock)
