"""A node's connection to the broker, from its settings."""

from __future__ import annotations

from adaptivegen.bus.nats import NatsBus
from adaptivegen.settings import ServiceSettings


def open_bus(settings: ServiceSettings) -> NatsBus:
    """The broker as this node reaches it; connects with `start`."""
    return NatsBus(
        settings.nats_servers(),
        name=settings.node_id,
        tls_ca=settings.nats_ca,
        credentials=settings.nats_credentials,
    )
