"""Which source of endpoints a setting names."""

import json
import sys
from pathlib import Path

import pytest

from adaptivegen.bus.memory import MemoryBus
from adaptivegen.clock import ManualClock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.consul import ConsulDiscovery
from adaptivegen.discovery.consul_service import ConsulOptions
from adaptivegen.discovery.nats_kv import NatsDiscovery
from adaptivegen.discovery.source import agent_url, check_source, open_discovery
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


@pytest.mark.parametrize(
    ("setting", "agent"),
    [
        ("consul", "http://127.0.0.1:8500"),
        ("consul:http://10.0.0.1:8500", "http://10.0.0.1:8500"),
        ("consul:https://consul.example", "https://consul.example"),
        ("consul:http://[::1]:8500", "http://[::1]:8500"),
    ],
)
def test_consul_is_the_source_by_its_agent(setting: str, agent: str) -> None:
    clock = ManualClock()
    assert agent_url(setting) == agent
    assert isinstance(open_discovery(setting, MemoryBus(clock), clock), ConsulDiscovery)


@pytest.mark.parametrize(
    "setting",
    [
        "",
        "NATS",
        "nats ",
        "static",
        "static:",
        "consul:",
        "consul://127.0.0.1:8500",
        "consul:127.0.0.1:8500",
        "consul:http://user:secret@host",
        "consul:http://host/v1",
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(setting: str) -> None:
    clock = ManualClock()
    with pytest.raises(SettingsInvalid, match=r"nats, static:<path.*, consul, consul:<http"):
        open_discovery(setting, MemoryBus(clock), clock)


def test_without_its_library_consul_is_refused_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "consul", None)
    with pytest.raises(SettingsInvalid, match=r"pip install 'adaptivegen\[consul\]'"):
        check_source("consul")
    check_source("nats")


def test_a_ca_that_is_none_is_refused(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "ca.pem"
    path.write_text("PEM")
    with pytest.raises(SettingsInvalid, match=r"consul_ca .*ca\.pem cannot be used"):
        open_discovery("consul:https://c", MemoryBus(clock), clock, ConsulOptions(ca=path))
