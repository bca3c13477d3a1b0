"""Which source of endpoints a node uses, by its setting: the broker, Consul, or a file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Discovery, is_url
from adaptivegen.discovery.consul import ConsulDiscovery
from adaptivegen.discovery.consul_service import LOCAL_AGENT, ConsulOptions
from adaptivegen.discovery.nats_kv import NatsDiscovery
from adaptivegen.discovery.static_file import StaticFile
from adaptivegen.errors import SettingsInvalid

BROKER = "nats"
ALLOWED = "nats, static:<path of a JSON file>, consul, consul:<http(s)://host[:port] of the agent>"
WITHOUT_CONSUL = "nats or static:<path of a JSON file>, as py-consul is missing here: pip install 'adaptivegen[consul]'"
_STATIC = "static:"
_CONSUL = "consul"


def check_source(setting: str) -> None:
    """Raise SettingsInvalid, saying what is allowed, for what names no source, and for Consul without its library."""
    agent = agent_url(setting)
    known = setting == BROKER or agent is not None or (setting.startswith(_STATIC) and setting.removeprefix(_STATIC))
    if not known:
        raise SettingsInvalid(ALLOWED, param="discovery")
    if agent is not None and find_spec("consul") is None:
        raise SettingsInvalid(WITHOUT_CONSUL, param="discovery")


def agent_url(setting: str) -> str | None:
    """The URL of the Consul agent that `setting` names; None where it names none."""
    source, colon, url = setting.partition(":")
    if source != _CONSUL:
        return None
    if not colon:
        return LOCAL_AGENT
    return url if is_url(url) else None


def open_discovery(setting: str, bus: Bus, clock: Clock, consul: ConsulOptions | None = None) -> Discovery:
    """The source that `setting` names; the broker is used for `nats` only. Raises SettingsInvalid."""
    check_source(setting)
    if setting == BROKER:
        return NatsDiscovery(bus, clock)
    agent = agent_url(setting)
    if agent is not None:
        return ConsulDiscovery(clock, url=agent, options=consul)
    return StaticFile(Path(setting.removeprefix(_STATIC)), clock)
