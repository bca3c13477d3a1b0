"""uvicorn inside our own loop and shutdown: no signal handlers of its own, a bound socket given, a bounded drain."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import uvicorn

from adaptivegen.errors import SettingsInvalid

KEEP_ALIVE_S = 30
BACKLOG = 1024


class _Quiet(uvicorn.Server):
    """Leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket; raises SettingsInvalid when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        raise SettingsInvalid(f"cannot listen on {host}:{port}: {exc.strerror}", param="port") from exc
    listener.listen(BACKLOG)
    return listener


class HttpServer:
    """One ASGI application on one socket."""

    def __init__(self, application: Any, listener: socket.socket, *, cert: Path | None, key: Path | None) -> None:
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE_S,
            ssl_certfile=cert,
            ssl_keyfile=key,
            server_header=False,
            h11_max_incomplete_event_size=32 * 1024,
        )
        self._server = _Quiet(config)
        self._listener = listener

    async def run(self) -> None:
        """Serve until `stop`, then finish open responses within what it was given."""
        await self._server.serve(sockets=[self._listener])

    def stop(self, *, within_s: float) -> None:
        """Take no more; `run` returns when open responses have ended, after `within_s` at the latest."""
        # uvicorn declares whole seconds and hands them to asyncio, which takes fractions.
        self._server.config.timeout_graceful_shutdown = cast(int, within_s)
        self._server.should_exit = True
