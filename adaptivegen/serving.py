"""uvicorn inside our own loop and shutdown: no signal handlers of its own, a bound socket given, a bounded drain.

Adds the bounds that uvicorn leaves open. Connections: beyond `max_connections` each request is answered 503 with
Retry-After, beyond twice as many a connection is dropped. Time: a request's head has `head_s` from its first byte (or
from the connection's), its body `body_s` from then on, whether the application reads it or not.

The application finds in the state of each request who is at the other end (`peer_of`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h11
import uvicorn
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from adaptivegen.errors import STATUS, AdaptiveGenError, RequestTimeout, ResourceExhausted, SettingsInvalid, whole_s

KEEP_ALIVE_S = 30
BACKLOG = 1024
FULL_RETRY_S = 2.0
_PEER = "peer"  # in the state of a request
_NAME_KINDS = ("DNS", "URI", "email", "IP Address")  # of which gRPC tells, too
FULL_STATUS = 503  # not the 429 of an exhausted quota: this caller did nothing too often


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """The bounds of one HTTP server."""

    max_connections: int
    head_s: float = 10.0
    body_s: float = 60.0  # the application may be stricter, and say so


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection: the names in the certificate that was shown, none without one.

    abort: ends the connection at once, also where the other end does not read.
    """

    names: tuple[str, ...] = ()
    abort: Callable[[], None] = lambda: None


def peer_of(request: Request) -> Peer:
    """Who asks; somebody without names where it is not one of our servers that serves."""
    found = getattr(request.state, _PEER, None)
    return found if isinstance(found, Peer) else Peer()


def names_in(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """All names in a certificate as `getpeercert` tells it, the alternative ones and then the common one: what gRPC
    has of the same certificate."""
    shown = [_plain(kind, name) for kind, name in certificate.get("subjectAltName", ()) if kind in _NAME_KINDS]
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    common = next((name for kind, name in subject if kind == "commonName"), "")
    return tuple(dict.fromkeys(name for name in (*shown, common) if name))


def _plain(kind: str, name: str) -> str:
    """The name; an IPv6 address comes written out."""
    if kind != "IP Address":
        return name
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


class _Quiet(uvicorn.Server):
    """Leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class BoundedConfig(uvicorn.Config):
    """uvicorn's, with our bounds."""

    limits: ServingLimits


class BoundedConnection(H11Protocol):
    """One connection of uvicorn, with bounds on how many there are and on how long a request takes to arrive."""

    _waits_for: object = None  # what part of which request is on its way
    _alarm: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, _PEER: Peer(_names(transport), transport.abort)}
        if len(self.connections) > 2 * self._limits.max_connections:
            transport.abort()
        elif len(self.connections) > self._limits.max_connections:
            self.app = cast(Any, _refuse_full)
        self._expect("head", self._limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._expect(None, 0)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()

    @property
    def _limits(self) -> ServingLimits:
        return cast(BoundedConfig, self.config).limits

    def _look(self) -> None:
        """Set the alarm for what is on its way now. It runs on while more of the same arrives."""
        if self.transport.is_closing():
            self._expect(None, 0)
        elif self.conn.their_state is h11.SEND_BODY:
            self._expect(self.cycle, self._limits.body_s)
        elif self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._expect("head", self._limits.head_s)
        else:
            self._expect(None, 0)  # between requests the keep-alive time counts

    def _expect(self, part: object, within_s: float) -> None:
        if part is self._waits_for and part is not None:
            return
        self._waits_for = part
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if part is not None:
            self._alarm = self.loop.call_later(within_s, self._late)

    def _late(self) -> None:
        """The request did not arrive: say so where nothing was said yet, and close."""
        if self.transport.is_closing():
            return
        answering = self.cycle is not None and not self.cycle.response_complete
        if self._waits_for == "head" and not answering:
            late = RequestTimeout(f"the head of the request did not arrive within {self._limits.head_s:g} s")
            self.transport.write(_plain_answer(late))
        self.transport.close()


def _names(transport: asyncio.Transport) -> tuple[str, ...]:
    tls = transport.get_extra_info("ssl_object")
    return names_in(tls.getpeercert() or {}) if tls is not None else ()


async def _refuse_full(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """The application of connections beyond the bound."""
    full = ResourceExhausted("this server has as many connections as it takes", retry_after_s=FULL_RETRY_S)
    headers, body = _rendered(full)
    await send({"type": "http.response.start", "status": FULL_STATUS, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _rendered(error: AdaptiveGenError) -> tuple[list[tuple[bytes, bytes]], bytes]:
    body = json.dumps({"error": error.body()}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", f"{whole_s(error.retry_after_s)}".encode()))
    return headers, body


def _plain_answer(error: AdaptiveGenError) -> bytes:
    """An answer to a request that never came."""
    headers, body = _rendered(error)
    lines = [f"HTTP/1.1 {STATUS[type(error)].http} ".encode(), *(name + b": " + value for name, value in headers)]
    return b"\r\n".join([*lines, b"", body])


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
    """One ASGI application on one socket. With `client_ca`, clients must show a certificate of it."""

    def __init__(
        self,
        application: Any,
        listener: socket.socket,
        *,
        cert: Path | None,
        key: Path | None,
        client_ca: Path | None = None,
        limits: ServingLimits,
    ) -> None:
        config = BoundedConfig(
            application,
            http=BoundedConnection,
            interface="asgi3",
            ws="none",
            proxy_headers=False,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE_S,
            ssl_certfile=cert,
            ssl_keyfile=key,
            ssl_ca_certs=str(client_ca) if client_ca else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if client_ca else ssl.CERT_NONE,
            server_header=False,
            h11_max_incomplete_event_size=32 * 1024,
        )
        config.limits = limits
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
