"""gRPC channels to peers and the one way to call: with a deadline, the trace context, and typed errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from adaptivegen.errors import InternalError, NodeUnavailable
from adaptivegen.rpc.server import MAX_MESSAGE_BYTES
from adaptivegen.rpc.status import from_rpc_error
from adaptivegen.telemetry import carry

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_http_proxy", 0),  # nodes reach one another directly, whatever the environment says
)


@dataclass(frozen=True, slots=True)
class ClientTls:
    """PEM files of a client: the CA of servers, and its own certificate where servers ask for one."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises NodeUnavailable where one is not there: it may be being replaced."""
        try:
            return grpc.ssl_channel_credentials(
                root_certificates=self.ca.read_bytes(),
                private_key=self.key.read_bytes() if self.key else None,
                certificate_chain=self.cert.read_bytes() if self.cert else None,
            )
        except OSError as exc:
            raise NodeUnavailable(f"a certificate cannot be read: {exc}") from exc


def open_channel(address: str, *, tls: ClientTls | None = None) -> grpc.aio.Channel:
    """A channel to `host:port`; connects on first use and reconnects by itself. The caller closes it."""
    if tls is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    return grpc.aio.secure_channel(address, tls.credentials(), options=_OPTIONS)


def _metadata(extra: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return (*carry().items(), *extra)


@contextmanager
def _typed(peer: str) -> Iterator[None]:
    """grpc's errors as ours. A channel that was closed cancels its open calls: that is a peer we no longer ask, and no
    cancellation of the task that asked it."""
    try:
        yield
    except grpc.aio.AioRpcError as exc:
        raise from_rpc_error(exc, peer=peer) from exc
    except grpc.aio.UsageError as exc:
        raise NodeUnavailable(f"{peer}: {exc}") from exc
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise NodeUnavailable(f"{peer}: its channel was closed") from exc


def _read(message: Any, peer: str) -> Any:
    """The message; raises InternalError for None, which is how grpc says that it could not be decoded."""
    if message is None:
        raise InternalError(f"{peer}: its answer cannot be decoded")
    return message


async def call(
    method: Callable[..., Any],
    request: object,
    *,
    deadline_s: float,
    peer: str,
    metadata: tuple[tuple[str, str], ...] = (),
) -> Any:
    """A unary call of a generated stub's method; raises the typed error the peer raised, or Unavailable and kin."""
    with _typed(peer):
        return _read(await method(request, timeout=deadline_s, metadata=_metadata(metadata)), peer)


async def stream(
    method: Callable[..., Any],
    request: object,
    *,
    deadline_s: float,
    peer: str,
    metadata: tuple[tuple[str, str], ...] = (),
) -> AsyncGenerator[Any, None]:
    """The messages of a server stream; errors as in `call`. Who leaves it half read closes it (`aclosing`)."""
    with _typed(peer):
        responses = method(request, timeout=deadline_s, metadata=_metadata(metadata))
        try:
            async for message in responses:
                yield _read(message, peer)
        finally:
            responses.cancel()
