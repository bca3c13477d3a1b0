"""One connection to a NATS cluster, and the translation of nats-py's errors.

Owns the client: it reconnects by itself for ever, is made again when nats-py closed it for good (a refused login, a
protocol error), and keeps nothing back while disconnected (nats-py's buffer of unsent publishes is off: what waits in
it may be lost or arrive after its caller gave up). No third-party exception leaves `translated`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, cast

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from adaptivegen.bus.nats_tls import client_for
from adaptivegen.errors import (
    BrokerUnavailable,
    Conflict,
    InvalidRequest,
    PayloadTooLarge,
    PreconditionFailed,
    ResourceExhausted,
    SettingsInvalid,
    Unauthenticated,
)
from adaptivegen.telemetry import get_logger

CALL_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0
FLUSH_TIMEOUT_S = 2
RECONNECT_WAIT_S = 0.25
RETRY_FULL_S = 5.0
_REFUSED = ("authorization violation", "authentication", "user credentials")  # as the server and nats-py word it
_STREAM_DIFFERS = 10058  # JSStreamNameExistErr: the stream is there with another configuration
_STREAM_FULL = 10077  # JSStreamStoreFailedF, which also names other reasons
_NO_RESOURCES = (10023, 10047)  # JSInsufficientResourcesErr, JSStorageResourcesExceededErr

GONE = (nats.js.errors.NotFoundError, nats.js.errors.NoStreamResponseError, nats.js.errors.BucketNotFoundError)
"""What nats-py raises when a stream, bucket or consumer does not exist (or no JetStream answers for it)."""


@contextmanager
def cancels_kept() -> Iterator[None]:
    """Raises the cancel that nats-py lost, in place of an answer or an error.

    It waits by `asyncio.wait_for`, which before Python 3.12 answers instead of being cancelled where both come in one
    turn of the loop. Whoever cancelled would wait for ever.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0

    def lost() -> bool:
        return task is not None and task.cancelling() > before

    try:
        yield
    except Exception as exc:
        if lost():
            raise asyncio.CancelledError from exc
        raise
    if lost():
        raise asyncio.CancelledError


@contextmanager
def translated(what: str) -> Iterator[None]:
    """nats-py's errors as ours, with `what` was tried in front; `GONE` is for the callers to handle first."""
    with cancels_kept(), _named(what):
        yield


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except nats.js.errors.KeyWrongLastSequenceError as exc:
        raise PreconditionFailed(f"{what}: someone else wrote first") from exc
    except nats.errors.MaxPayloadError as exc:
        raise PayloadTooLarge(f"{what}: larger than the broker takes in one message") from exc
    except (nats.errors.BadSubjectError, nats.errors.BadHeaderError, nats.js.errors.InvalidKeyError) as exc:
        raise InvalidRequest(f"{what}: {exc}") from exc
    except nats.js.errors.APIError as exc:
        if _is_full(exc):
            raise ResourceExhausted(f"{what}: {exc.description}", retry_after_s=RETRY_FULL_S) from exc
        raise BrokerUnavailable(f"{what}: {exc}") from exc
    except (nats.errors.Error, TimeoutError, OSError) as exc:
        raise BrokerUnavailable(f"{what}: {type(exc).__name__} {exc}".rstrip()) from exc


def _is_full(exc: nats.js.errors.APIError) -> bool:
    return exc.err_code in _NO_RESOURCES or (exc.err_code == _STREAM_FULL and "maximum" in (exc.description or ""))


async def ensure_stream(jetstream: JetStreamContext, config: api.StreamConfig) -> None:
    """Make a stream. One that is there with other limits (an operator's, another version's) is used as it is; one that
    keeps messages by another rule raises Conflict."""
    try:
        await jetstream.add_stream(config)
    except nats.js.errors.BadRequestError as exc:
        if exc.err_code != _STREAM_DIFFERS or config.name is None:
            raise
        found = (await jetstream.stream_info(config.name)).config
        if found.retention != (config.retention or api.RetentionPolicy.LIMITS):
            raise Conflict(f"stream {config.name} has retention {found.retention}, not {config.retention}") from exc


class Closable(Protocol):
    """What ends with the connection."""

    async def close(self) -> None:
        """End it."""
        ...


class NatsConnection:
    """`name` shows in the broker's connection list. `tls_ca` signs the servers' certificates (PEM); with it, or
    with a `tls://` URL, no server without TLS is spoken to. `credentials` is a file of a user's JWT and seed, as `nsc`
    makes it."""

    def __init__(
        self,
        servers: list[str],
        *,
        name: str,
        call_timeout_s: float = CALL_TIMEOUT_S,
        tls_ca: Path | None = None,
        credentials: Path | None = None,
    ) -> None:
        self.call_timeout_s = call_timeout_s
        self._servers = servers
        self._name = name
        self._tls_ca = tls_ca
        self._credentials = credentials
        self.feeds: set[Closable] = set()
        self._client: Client | None = None
        self._closed = False
        self._connecting = asyncio.Lock()
        self._failed_attempts = 0
        self._failure = ""
        self._last_error = ""
        self._refusal = ""

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    async def open(self) -> None:
        """Connect; raises BrokerUnavailable, or Unauthenticated when the broker refuses the credentials."""
        self._closed = False
        try:
            await self.client()
        except BrokerUnavailable as exc:
            if self._refusal:
                raise Unauthenticated(f"the broker refused this node: {self._refusal}") from exc
            raise

    async def close(self) -> None:
        """End all feeds, flush, disconnect; nothing connects again until `open`."""
        self._closed = True
        for feed in list(self.feeds):
            await feed.close()
        client, self._client = self._client, None
        if client is None or client.is_closed:
            return
        # Not `drain`: it waits for subscriptions, and an open pull would hold it up.
        with cancels_kept():
            with suppress(TimeoutError, nats.errors.Error):
                if client.is_connected:
                    await client.flush(timeout=FLUSH_TIMEOUT_S)
            await client.close()

    async def client(self) -> Client:
        """The connected client. Raises BrokerUnavailable at once while nats-py is reconnecting."""
        client = self._client
        if client is None or client.is_closed:
            client = await self._rebuild()
        if not client.is_connected:
            raise BrokerUnavailable("the connection to the broker is lost; reconnecting")
        return client

    async def jetstream(self) -> JetStreamContext:
        """JetStream of the connected client."""
        return (await self.client()).jetstream(timeout=self.call_timeout_s)

    async def api(self, what: str, body: dict[str, object]) -> dict[str, Any]:
        """Ask JetStream's API for what nats-py has no call for; raises nats-py's errors, as its calls do."""
        message = await (await self.client()).request(
            f"$JS.API.{what}", json.dumps(body).encode(), timeout=self.call_timeout_s
        )
        answer: dict[str, Any] = json.loads(message.data)
        if "error" in answer:
            nats.js.errors.APIError.from_error(answer["error"])
        return answer

    async def _rebuild(self) -> Client:
        """A new client. Callers that waited for another's attempt share its failure, so that no one waits for several
        in a row."""
        failed_before = self._failed_attempts
        async with self._connecting:
            if self._client is not None and not self._client.is_closed:
                return self._client
            if self._closed:
                raise BrokerUnavailable("this connection to the broker was closed")
            if self._failed_attempts != failed_before:
                raise BrokerUnavailable(self._failure)
            try:
                self._client = await self._connect()
            except BrokerUnavailable as exc:
                self._failure = exc.message
                self._failed_attempts += 1
                raise
            return self._client

    def _tls(self) -> ssl.SSLContext | None:
        """What the servers' certificates are checked with; None without a CA. Raises SettingsInvalid."""
        if self._tls_ca is None:
            return None
        try:
            return ssl.create_default_context(cafile=self._tls_ca)
        except (OSError, ssl.SSLError) as exc:
            raise SettingsInvalid(f"nats_ca {self._tls_ca} cannot be used: {exc}", param="nats_ca") from exc

    async def _connect(self) -> Client:
        async def on_error(exc: Exception) -> None:
            self._last_error = str(exc) or type(exc).__name__
            if any(words in self._last_error.lower() for words in _REFUSED):
                self._refusal = self._last_error
            get_logger().debug("broker_error", error=self._last_error)

        async def on_disconnect() -> None:
            if self._client is not None:  # else this is our own close
                get_logger().warning("broker_disconnected")

        async def on_reconnect() -> None:
            get_logger().info("broker_reconnected")

        client, tls = client_for(self._servers, with_ca=self._tls_ca is not None), self._tls()
        self._last_error = self._refusal = ""
        try:
            with cancels_kept():
                async with asyncio.timeout(CONNECT_TIMEOUT_S):  # nats-py would try for ever
                    await client.connect(
                        self._servers,
                        name=self._name,
                        connect_timeout=2,
                        reconnect_time_wait=cast(int, RECONNECT_WAIT_S),  # a float works; its stub is narrow
                        max_reconnect_attempts=-1,
                        ping_interval=10,
                        allow_reconnect=True,
                        pending_size=0,
                        tls=tls,
                        user_credentials=str(self._credentials) if self._credentials else None,
                        error_cb=on_error,
                        disconnected_cb=on_disconnect,
                        reconnected_cb=on_reconnect,
                    )
        except (nats.errors.Error, TimeoutError, OSError) as exc:
            await client.close()
            raise BrokerUnavailable(f"no broker: {self._last_error or exc or type(exc).__name__}") from exc
        except BaseException as exc:
            with suppress(AssertionError):  # nats-py's, where `connect` did not get as far as a connection
                await client.close()
            if self._credentials is None or not isinstance(exc, Exception):
                raise
            why = "the extra nats-credentials is not installed" if isinstance(exc, ImportError) else f"{exc!r}"
            raise SettingsInvalid(f"nats_credentials {self._credentials}: {why}", param="nats_credentials") from exc
        return client
