"""Logs, request ids and W3C trace context: one way for every process.

Decides the shape of a log line (one JSON object per line on stdout: timestamp, level, service, node_id, event,
request_id, trace_id) and how the trace context goes into and out of carriers (gRPC metadata, NATS and HTTP headers).
Spans are made by OpenTelemetry; without an exporter they cost little and still carry the ids.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Item = TypeVar("Item")
REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[ -~]{1,512}")  # as much as W3C asks everyone to pass on; 32 members may have 16 kB
_PROPAGATOR = TraceContextTextMapPropagator()


def configure_logging(service: str, node_id: str, level: str = "info") -> None:
    """Set up JSON logs on stdout and the tracer; called once, in a process's composition."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _add_trace_id,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service, node_id=node_id)
    resource = Resource.create({"service.name": f"adaptivegen-{service}", "service.instance.id": node_id})
    trace.set_tracer_provider(TracerProvider(resource=resource))


def _add_trace_id(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Name the trace a line belongs to, if any."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
    return event


def get_logger() -> structlog.stdlib.BoundLogger:
    """The process's logger; keyword arguments become fields."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger()
    return logger


@functools.cache
def _tracer() -> trace.Tracer:
    """The process's, whichever provider it has by the time of a span; looking it up takes longer than a small span."""
    return trace.get_tracer("adaptivegen")


@contextmanager
def span(name: str, *, carrier: Mapping[str, str] | None = None, **attributes: Any) -> Iterator[trace.Span]:
    """A span, child of the context in `carrier` when it holds a valid `traceparent`, else of the current one."""
    with _tracer().start_as_current_span(name, context=_parent(carrier), attributes=attributes) as current:
        yield current


async def spanned(
    name: str, items: AsyncIterator[Item], *, carrier: Mapping[str, str] | None = None
) -> AsyncGenerator[Item, None]:
    """The items, each made within one span (as `span`). It is entered item by item: who is left half read may be ended
    by another task, where a span that was still entered could not be left."""
    current = _tracer().start_span(name, context=_parent(carrier))
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


def _parent(carrier: Mapping[str, str] | None) -> Context | None:
    given = _trace_headers(carrier or {})
    return _PROPAGATOR.extract(given) if given else None


def carry() -> dict[str, str]:
    """Headers that carry the current trace context and request id to a peer."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    request_id = given_request_id(
        {REQUEST_ID_HEADER: str(structlog.contextvars.get_contextvars().get("request_id", ""))}
    )
    if request_id:
        carrier[REQUEST_ID_HEADER] = request_id
    return carrier


def _trace_headers(carrier: Mapping[str, str]) -> dict[str, str]:
    """The trace context in a peer's headers, as far as it can be passed on: no `traceparent`, nothing at all."""
    traceparent, tracestate = carrier.get("traceparent", ""), carrier.get("tracestate", "")
    if not _TRACEPARENT.fullmatch(traceparent):
        return {}
    return {"traceparent": traceparent} | ({"tracestate": tracestate} if _TRACESTATE.fullmatch(tracestate) else {})


def take_request_id(carrier: Mapping[str, str]) -> None:
    """Log what follows in this task under the request id a peer sent, if it sent a legal one, and under no other."""
    request_id = given_request_id(carrier)
    if request_id:
        structlog.contextvars.bind_contextvars(request_id=request_id)
    else:
        structlog.contextvars.unbind_contextvars("request_id")


def given_request_id(carrier: Mapping[str, str]) -> str:
    """The request id in a peer's headers, or "" where there is none that can be passed on: 1 to 64 characters of
    A-Z, a-z, 0-9, _ . and -. Any other would break the headers of the next call."""
    given = carrier.get(REQUEST_ID_HEADER, "")
    return given if _REQUEST_ID.fullmatch(given) else ""
