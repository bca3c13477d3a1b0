"""The gRPC server every process uses: deadlines required, errors translated, requests named and traced, drain.

Decides the rules of the wire. Serves grpc.health.v1 and reflection beside the services given. It must not know what
the services do.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from adaptivegen.errors import AdaptiveGenError, InternalError, InvalidRequest, SettingsInvalid
from adaptivegen.ids import new_token
from adaptivegen.rpc.status import details, status_of, trailing_metadata
from adaptivegen.telemetry import get_logger, given_request_id, name_request, span, spanned

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_METADATA_BYTES = 8 * 1024
MAX_CONCURRENT_RPCS = 1024

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),  # else a second process would share a taken port instead of being refused
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_connection_age_ms", 600_000),
    ("grpc.max_connection_age_grace_ms", 600_000),
)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files of a server. With `client_ca`, peers must show a certificate it signed."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Read the files."""
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.cert.read_bytes())],
            root_certificates=self.client_ca.read_bytes() if self.client_ca else None,
            require_client_auth=self.client_ca is not None,
        )


Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
UnaryBehaviour: TypeAlias = Callable[..., Awaitable[Any]]
StreamBehaviour: TypeAlias = Callable[..., AsyncIterator[Any]]


class _Rules:
    """Deadline, request id, trace context and error translation for unary and server-streaming calls.

    Put around each method once, when it is registered: an interceptor would make a new handler for every call.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def around(self, method: str, handler: Handler) -> Handler:
        """The handler of a method, such as "/package.Service/Method", under the rules."""
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, cast(UnaryBehaviour, handler.unary_unary)),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, cast(StreamBehaviour, handler.unary_stream)),
                handler.request_deserializer,
                handler.response_serializer,
            )
        raise NotImplementedError(f"{method}: no service here takes a stream of requests")

    def _enter(self, context: grpc.aio.ServicerContext[Any, Any]) -> dict[str, str]:
        carrier = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        request_id = given_request_id(carrier) or new_token(prefix="req", rng=self._rng)
        name_request(request_id)
        remaining_s = context.time_remaining()
        if remaining_s is None or remaining_s > 24 * 3600:
            raise InvalidRequest.field("deadline", remaining_s, "set on every call, at most 24 h")
        return carrier

    def _unary(self, method: str, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                with span(method, carrier=self._enter(context)):
                    return await behaviour(request, context)
            except AdaptiveGenError as exc:
                await _abort(context, exc)
            except grpc.aio.AbortError:
                raise
            except Exception as exc:
                await _abort(context, _bug(method, exc))

        return call

    def _stream(self, method: str, behaviour: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                carrier = self._enter(context)
                async with aclosing(spanned(method, behaviour(request, context), carrier=carrier)) as messages:
                    async for message in messages:
                        yield message
            except AdaptiveGenError as exc:
                await _abort(context, exc)
            except grpc.aio.AbortError:
                raise
            except Exception as exc:
                await _abort(context, _bug(method, exc))

        return call


class _Ruled:
    """What a generated `add_..._to_server` takes for the server: passes each service's methods on under the rules."""

    def __init__(self, server: grpc.aio.Server, rules: _Rules) -> None:
        self._server = server
        self._rules = rules

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """The same methods that are registered by name at once."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        ruled = {name: self._rules.around(f"/{service}/{name}", handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, ruled),))


def _bug(method: str, exc: Exception) -> InternalError:
    get_logger().error("unexpected_error", method=method, exc_info=exc)
    return InternalError(f"{type(exc).__name__} in {method}; see the log of this node")


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: AdaptiveGenError) -> None:
    await context.abort(status_of(error), details(error), trailing_metadata(error))


class RpcServer:
    """One process's gRPC server. `reserve` a port, `register` services, `start`, later `drain`."""

    def __init__(self, *, rng: random.Random) -> None:
        self._server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CONCURRENT_RPCS)
        self._ruled = _Ruled(self._server, _Rules(rng))
        self._health = health.aio.HealthServicer()
        self._names: list[str] = []
        self.port = 0

    def register(self, add: Callable[[Any, Any], None], servicer: object, full_name: str) -> None:
        """Add a servicer with its generated `add_..._to_server` and its full service name."""
        add(servicer, self._ruled)
        self._names.append(full_name)

    def reserve(self, *, host: str, port: int, tls: ServerTls | None) -> int:
        """Take the port (0: any free one) without serving yet; returns it. Raises SettingsInvalid when it is taken."""
        address = f"{host}:{port}"
        try:
            self.port = (
                self._server.add_secure_port(address, tls.credentials())
                if tls
                else self._server.add_insecure_port(address)
            )
        except RuntimeError as exc:
            raise SettingsInvalid(f"cannot listen on {address}", param="grpc_port") from exc
        return self.port

    async def start(self) -> None:
        """Serve what was registered, on the reserved port, and report SERVING. Health and reflection are under no
        rules: probes and tools may omit the deadline."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflected: Sequence[str] = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(reflected, self._server)
        await self._server.start()
        await self.set_serving(True)

    async def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 answers, for the server and each service."""
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, state)

    async def drain(self, *, grace_s: float) -> None:
        """Say NOT_SERVING, take no new call, let open ones finish within `grace_s`, then stop."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
