"""Logs, request ids and W3C trace context: one way for every process.

Decides the shape of a log line (one JSON object per line on stdout: timestamp, level, service, node_id, event,
request_id, trace_id) and how the trace context goes into and out of carriers (gRPC metadata, NATS and HTTP headers).
Spans are made by OpenTelemetry where something in the process records them (an agent that has set a tracer provider).
Where nothing does, a span is its ids alone: what would be kept for nobody takes ten times as long to make.
"""

from __future__ import annotations

import functools
import logging
import random
import re
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, MutableMapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from datetime import UTC, datetime
from json import JSONEncoder
from typing import Any, TypeVar

import structlog
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Item = TypeVar("Item")
REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_TRACESTATE = re.compile(r"[ -~]{1,512}")  # as much as W3C asks everyone to pass on; 32 members may have 16 kB
_PROPAGATOR = TraceContextTextMapPropagator()
_IDS = random.Random()  # seeded by the system: ids of two processes differ
_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)
_NAMED: ContextVar[str] = ContextVar("request_id", default="")  # the request that a task works for
_logger: structlog.stdlib.BoundLogger | None = None  # the process's, once its logs are set up


def configure_logging(service: str, node_id: str, level: str = "info") -> None:
    """Set up JSON logs on stdout; called once, in a process's composition."""
    global _logger
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    structlog.configure(
        processors=[_Lines(service, node_id)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
    )
    _logger = structlog.get_logger().bind()


def reset_logging() -> None:
    """Undo `configure_logging`, for tests of services that share a process."""
    global _logger
    structlog.reset_defaults()
    _logger = None
    name_request("")


class _Lines:
    """Makes the line of an event: what the caller says of it, in that order, then whose line it is and of when.

    One step for all, and one encoder, since a line is written for each decision of a scheduler (docs/adr/0035).
    """

    def __init__(self, service: str, node_id: str) -> None:
        self._service = service
        self._node_id = node_id
        self._encode = JSONEncoder(default=repr).encode
        self._second = (0, "")  # that of the last line, since 1970 and in words; one tuple, since threads log, too

    def __call__(self, _logger: Any, method: str, event: MutableMapping[str, Any]) -> bytes:
        event.setdefault("service", self._service)
        event.setdefault("node_id", self._node_id)
        request_id = _NAMED.get()
        if request_id:
            event.setdefault("request_id", request_id)
        event["level"] = method
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event["trace_id"] = f"{context.trace_id:032x}"
        event["timestamp"] = self._now()
        if "exc_info" in event:
            event = structlog.processors.format_exc_info(_logger, method, event)
        return self._encode(event).encode("ascii")

    def _now(self) -> str:
        """The time in UTC, to the microsecond."""
        second, microsecond = divmod(time.time_ns() // 1000, 1_000_000)
        known, words = self._second
        if second != known:
            words = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
            self._second = second, words
        return f"{words}.{microsecond:06d}Z"


def get_logger() -> structlog.stdlib.BoundLogger:
    """The process's logger; keyword arguments become fields."""
    return _logger or structlog.get_logger()


@functools.cache
def _recorder() -> trace.Tracer | None:
    """Whatever records this process's spans, found at the first of them; None where nothing does."""
    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider.get_tracer("adaptivegen")


def _begin(name: str, carrier: Mapping[str, str] | None, attributes: Mapping[str, Any]) -> trace.Span:
    """A span that is not entered yet: of the trace that the carrier or the current span names, else of a new one."""
    given, recorder = _given(carrier or {}), _recorder()
    if recorder is not None:
        parent = trace.set_span_in_context(trace.NonRecordingSpan(given)) if given is not None else None
        return recorder.start_span(name, context=parent, attributes=attributes)
    before = given or trace.get_current_span().get_span_context()
    known = before.is_valid
    ids = trace.SpanContext(
        trace_id=before.trace_id if known else _IDS.getrandbits(128) or 1,  # 0 is no id
        span_id=_IDS.getrandbits(64) or 1,
        is_remote=False,
        trace_flags=before.trace_flags if known else _SAMPLED,
        trace_state=before.trace_state,
    )
    return trace.NonRecordingSpan(ids)


class _Unrecorded:
    """A span of which nothing is kept, while it is the current one: entered and left in half the time of a generator's,
    since every call of a server is within one."""

    __slots__ = ("_span", "_token")

    def __init__(self, current: trace.Span) -> None:
        self._span = current

    def __enter__(self) -> trace.Span:
        self._token = attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(self, *_: object) -> None:
        detach(self._token)


def span(
    name: str, *, carrier: Mapping[str, str] | None = None, **attributes: Any
) -> AbstractContextManager[trace.Span]:
    """A span, child of the context in `carrier` when it holds a valid `traceparent`, else of the current one."""
    current = _begin(name, carrier, attributes)
    return trace.use_span(current, end_on_exit=True) if current.is_recording() else _Unrecorded(current)


async def spanned(
    name: str, items: AsyncIterator[Item], *, carrier: Mapping[str, str] | None = None
) -> AsyncGenerator[Item, None]:
    """The items, each made within one span (as `span`). It is entered item by item: who is left half read may be ended
    by another task, where a span that was still entered could not be left."""
    current = _begin(name, carrier, {})
    try:
        while True:
            with trace.use_span(current):
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
            yield item
    finally:
        current.end()
        if isinstance(items, AsyncGenerator):
            await items.aclose()


def _given(carrier: Mapping[str, str]) -> trace.SpanContext | None:
    """The span that a peer's headers name, as far as it can be passed on; None where they name none."""
    found = _TRACEPARENT.fullmatch(carrier.get("traceparent", ""))
    if found is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    state = carrier.get("tracestate", "")
    known = trace.TraceState.from_header([state]) if _TRACESTATE.fullmatch(state) else None
    context = trace.SpanContext(trace_id, span_id, True, trace.TraceFlags(flags), known)
    return context if context.is_valid else None


def carry() -> dict[str, str]:
    """Headers that carry the current trace context and request id to a peer."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    request_id = _NAMED.get()
    if _REQUEST_ID.fullmatch(request_id):
        carrier[REQUEST_ID_HEADER] = request_id
    return carrier


def name_request(request_id: str) -> None:
    """Log what follows in this task under a request id, and carry it to peers; under none where it is empty."""
    _NAMED.set(request_id)


def take_request_id(carrier: Mapping[str, str]) -> None:
    """Log what follows in this task under the request id a peer sent, if it sent a legal one, and under no other."""
    name_request(given_request_id(carrier))


def given_request_id(carrier: Mapping[str, str]) -> str:
    """The request id in a peer's headers, or "" where there is none that can be passed on: 1 to 64 characters of
    A-Z, a-z, 0-9, _ . and -. Any other would break the headers of the next call."""
    given = carrier.get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else ""
