"""JSON over HTTP as our servers speak it: bodies that may lie are read, and errors are answered in one shape.

A body is bounded, has a deadline and is strictly parsed; what is wrong is a typed error, and never is more read than
the limit.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Message, Receive

from adaptivegen.errors import (
    STATUS,
    AdaptiveGenError,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    RequestTimeout,
    whole_s,
)

BODY_DEADLINE_S = 30.0
SMALL_BODY_BYTES = 64 * 1024


def bounded(receive: Receive, max_bytes: int) -> Receive:
    """A `receive` that refuses more than `max_bytes` of body, whatever Content-Length said."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > max_bytes:
            raise PayloadTooLarge(f"the body has over {max_bytes} bytes", param="body")
        return message

    return limited


async def read_json(
    request: Request, *, max_bytes: int = SMALL_BODY_BYTES, deadline_s: float = BODY_DEADLINE_S
) -> dict[str, object]:
    """A small JSON object."""
    refuse_encoding(request)
    async with arriving(deadline_s):
        data = await Request(request.scope, bounded(request.receive, max_bytes)).body()
    return parse_json(data)


@asynccontextmanager
async def arriving(deadline_s: float) -> AsyncIterator[None]:
    """The time in which a body is read: a client that sends a byte a minute is told so."""
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except TimeoutError as exc:
        raise RequestTimeout(f"the body did not arrive within {deadline_s:g} s", param="body") from exc
    except ClientDisconnect as exc:
        raise InvalidRequest("the body ended before its Content-Length", param="body") from exc


def parse_json(data: bytes) -> dict[str, object]:
    """A JSON object without duplicate keys, NaN or infinities."""
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except UnicodeDecodeError as exc:
        raise InvalidRequest("the body is not UTF-8", param="body") from exc
    except RecursionError as exc:
        raise InvalidRequest("the body is nested too deeply", param="body") from exc
    except ValueError as exc:
        raise InvalidRequest(f"the body is not valid JSON: {exc}", param="body") from exc
    if not isinstance(value, dict):
        raise InvalidRequest.field("body", value, "a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise InvalidRequest.field("body", next(n for n in names if names.count(n) > 1), "each key once")
    return found


def _no_constant(name: str) -> NoReturn:
    raise InvalidRequest.field("body", name, "finite numbers")


def _finite(digits: str) -> float:
    """`1e999` is a number in JSON, and infinite as a float."""
    value = float(digits)
    return value if math.isfinite(value) else _no_constant(digits)


def refuse_encoding(request: Request) -> None:
    """Raise InvalidRequest for a body that is compressed."""
    encoding = request.headers.get("content-encoding")
    if encoding not in (None, "", "identity"):
        raise InvalidRequest.field("content-encoding", encoding, "identity")


def error_answer(raised: AdaptiveGenError) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers of an error."""
    headers = {"retry-after": f"{whole_s(raised.retry_after_s)}"} if raised.retry_after_s is not None else {}
    return STATUS[type(raised)].http, {"error": raised.body()}, headers


def failed(raised: AdaptiveGenError) -> Response:
    """The answer that says an error."""
    status, body, headers = error_answer(raised)
    if isinstance(raised, RequestTimeout):
        headers["connection"] = "close"  # what is still to come of the request is no next one
    return JSONResponse(body, status_code=status, headers=headers)


async def unrouted(request: Request, exc: Exception) -> Response:
    """The answer where no route fits: for Starlette's HTTPException."""
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    if status == 404:
        return failed(NotFound(f"no such path: {request.url.path[:200]}"))
    allowed = ", ".join(sorted(_methods(request)))
    error = InvalidRequest.field("method", request.method, allowed)
    return JSONResponse({"error": error.body()}, status_code=status, headers={"allow": allowed})


def _methods(request: Request) -> set[str]:
    """Those that the routes of the request's path have."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    fits = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return {method for route in fits for method in route.methods or ()}
