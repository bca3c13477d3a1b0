"""A NATS client that sends nothing before TLS where TLS was asked for.

nats-py uses TLS if the server says that it must: a server that does not say so (set up wrongly, or another one that
stands in between) was sent the password in the clear, also under a `tls://` URL. One that merely offers TLS is taken
at its word. Rests on nats-py's `_process_info`, which is private: a test with a server without TLS watches it.
"""

from __future__ import annotations

from typing import Any

import nats.errors
from nats.aio.client import Client

from adaptivegen.bus.nats_client import SteadyClient


class TlsClient(SteadyClient):
    """Refuses servers without TLS, on each connection and reconnection, before it tells them who it is."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and info.get("tls_available"):
            info["tls_required"] = True  # the very object nats-py looks at next
        if initial_connection and not info.get("tls_required"):
            raise nats.errors.Error("the broker speaks no TLS, which was asked for")
        await super()._process_info(info, initial_connection)


def client_for(servers: list[str], *, with_ca: bool) -> Client:
    """A client for these URLs: TLS is asked for by a CA to check with, or by any `tls://`."""
    return TlsClient() if with_ca or any(url.lower().startswith("tls://") for url in servers) else SteadyClient()
