"""Which source of endpoints a node uses, by its setting: the broker, or a file."""

from __future__ import annotations

from pathlib import Path

from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Discovery
from adaptivegen.discovery.nats_kv import NatsDiscovery
from adaptivegen.discovery.static_file import StaticFile
from adaptivegen.errors import SettingsInvalid

ALLOWED = "nats, static:<path of a JSON file> (Consul comes with a later version)"
_STATIC = "static:"


def check_source(setting: str) -> None:
    """Raise SettingsInvalid, saying what is allowed, for what names no source."""
    if setting != "nats" and not (setting.startswith(_STATIC) and setting.removeprefix(_STATIC)):
        raise SettingsInvalid(ALLOWED, param="discovery")


def open_discovery(setting: str, bus: Bus, clock: Clock) -> Discovery:
    """The source that `setting` names. Raises SettingsInvalid."""
    check_source(setting)
    if setting == "nats":
        return NatsDiscovery(bus, clock)
    return StaticFile(Path(setting.removeprefix(_STATIC)), clock)
