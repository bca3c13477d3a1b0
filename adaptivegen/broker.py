"""A node's connection to the broker, from its settings."""

from __future__ import annotations

from adaptivegen.bus.nats import NatsBus
from adaptivegen.settings import ServiceSettings


def open_bus(settings: ServiceSettings) -> NatsBus:
    """The broker as this node reaches it; connects with `start`. Raises SettingsInvalid for `nats_ca` and
    `nats_credentials`: the client cannot use them yet, and going without what was asked for would be worse."""
    for field in ("nats_ca", "nats_credentials"):
        if getattr(settings, field) is not None:
            raise settings.refuse(field, "not set, as the broker client of this version cannot use it")
    return NatsBus(settings.nats_servers(), name=settings.node_id)
