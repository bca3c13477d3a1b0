"""nats-py's client without a way to go deaf.

A round trip to the server (`flush`) whose caller gave up leaves its future behind, and nats-py's reader dies of the
answer that comes later: the connection then hears nothing until its own pings find it stale, half a minute on. Rests
on nats-py's `_process_pong` and `_pongs`, which are private: a test with a server that hangs for a while watches it.
"""

from __future__ import annotations

from nats.aio.client import Client


class SteadyClient(Client):
    """Takes late answers for what they are."""

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():  # whoever waited for this one has left
            self._pongs.pop(0)
            self._pongs_received += 1
            self._pings_outstanding = 0
            return
        await super()._process_pong()
