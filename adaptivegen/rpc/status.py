"""Errors over gRPC: our tree to a status with trailing metadata, and back.

The status code comes from the one table in adaptivegen.errors; the stable code, the field and the retry delay travel in
trailing metadata, so a peer rebuilds the very class that was raised. What gRPC would not carry (headers are ASCII, and
a peer ends a stream whose headers are too long) is left out or cut, so that the error arrives and not one about it.
"""

from __future__ import annotations

import math
import re

import grpc

from adaptivegen.errors import (
    STATUS,
    AdaptiveGenError,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NodeUnavailable,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    from_wire,
)

CODE_KEY = "ag-error-code"
PARAM_KEY = "ag-error-param"
RETRY_AFTER_KEY = "ag-retry-after-s"
MAX_DETAILS_BYTES = 2000  # percent-encoding triples them, and from 8 KiB of headers on a peer may end the stream
_HEADER_VALUE = re.compile(r"[ -~]{1,128}")

_FROM_STATUS: dict[grpc.StatusCode, type[AdaptiveGenError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: NodeUnavailable,  # by the peer, which drains; our own cancel never gets here
    grpc.StatusCode.UNAVAILABLE: NodeUnavailable,
}


def status_of(error: AdaptiveGenError) -> grpc.StatusCode:
    """The gRPC status code of an error."""
    status: grpc.StatusCode = grpc.StatusCode[STATUS[type(error)].grpc]
    return status


def details(error: AdaptiveGenError) -> str:
    """The error's message as gRPC carries it."""
    encoded = error.message.encode(errors="replace")
    if len(encoded) <= MAX_DETAILS_BYTES:
        return encoded.decode()
    return encoded[: MAX_DETAILS_BYTES - 3].decode(errors="ignore") + "..."


def trailing_metadata(error: AdaptiveGenError) -> tuple[tuple[str, str], ...]:
    """Metadata from which `from_rpc_error` rebuilds the error."""
    pairs = [(CODE_KEY, error.code)]
    if error.param and _HEADER_VALUE.fullmatch(error.param):
        pairs.append((PARAM_KEY, error.param))
    if error.retry_after_s is not None:
        pairs.append((RETRY_AFTER_KEY, f"{error.retry_after_s:.3f}"))
    return tuple(pairs)


def from_rpc_error(error: grpc.aio.AioRpcError, *, peer: str) -> AdaptiveGenError:
    """The typed error of a failed call; one without our metadata is named after its status."""
    trailing = {key: value for key, value in (error.trailing_metadata() or ()) if isinstance(value, str)}
    message = error.details() or str(error.code())
    if CODE_KEY in trailing:
        return from_wire(
            trailing[CODE_KEY],
            message,
            param=trailing.get(PARAM_KEY),
            retry_after_s=_seconds(trailing.get(RETRY_AFTER_KEY, "")),
        )
    return _FROM_STATUS.get(error.code(), InternalError)(f"{peer}: {message}")


def _seconds(text: str) -> float | None:
    """A delay as a peer wrote it; None for what is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
