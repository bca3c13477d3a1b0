"""Between our calls and httpx: requests out of calls, our errors out of its errors. Shared by both clients.

Decides timeouts per request and what each failure of the transport means; holds no connection.
"""

from __future__ import annotations

import httpx

from adaptivegen.errors import AdaptiveGenError, DeadlineExceeded, InternalError, InvalidRequest, NodeUnavailable
from adaptivegen.sdk.routes import REFERENCE, Call

CONNECT_TIMEOUT_S = 5.0
SILENCE_S = 25.0  # an edge sends a comment every 10 s; two missed ones and a half mean the connection is dead


def to_request(http: httpx.Client | httpx.AsyncClient, edge: str, call: Call, timeout: httpx.Timeout) -> httpx.Request:
    """The httpx request of a call to `edge`; raises InvalidRequest for an address that is none."""
    files = {REFERENCE: (call.file.name, call.file.data, "application/octet-stream")} if call.file else None
    try:
        return http.build_request(
            call.method,
            edge + call.path,
            headers=dict(call.headers),
            params=dict(call.params) or None,
            json=call.json_body,
            data=dict(call.form) if call.form is not None else None,
            files=files,
            timeout=timeout,
        )
    except httpx.InvalidURL as exc:
        raise InvalidRequest.field("base_url", edge, f"an http:// or https:// address ({exc})") from exc


def answer_timeout(timeout_s: float) -> httpx.Timeout:
    """For a call with one answer."""
    return httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))


def stream_timeout(remaining_s: float | None) -> httpx.Timeout:
    """For a stream of events: silence up to `SILENCE_S`, less when a deadline is nearer."""
    longest_s = SILENCE_S if remaining_s is None else min(SILENCE_S, remaining_s)
    return httpx.Timeout(longest_s, connect=min(CONNECT_TIMEOUT_S, longest_s))


def from_httpx(error: httpx.HTTPError, edge: str) -> AdaptiveGenError:
    """Our error for a failure of the transport, with httpx's as its cause."""
    ours: AdaptiveGenError
    if isinstance(error, httpx.UnsupportedProtocol):
        ours = InvalidRequest.field("base_url", edge, "an http:// or https:// address")
    elif isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        ours = DeadlineExceeded(f"call: {edge} did not answer in time")
    elif isinstance(error, httpx.TooManyRedirects | httpx.DecodingError):
        ours = InternalError(f"{edge} answered what cannot be followed or read: {error}")
    else:
        ours = NodeUnavailable(f"cannot reach the edge at {edge}: {error or type(error).__name__}")
    ours.__cause__ = error
    return ours


def lost(error: httpx.HTTPError, edge: str) -> AdaptiveGenError:
    """The same for a connection in the middle of a stream or download, where silence too means: connect again."""
    ours = from_httpx(error, edge)
    if isinstance(ours, DeadlineExceeded):
        ours = NodeUnavailable(f"the edge at {edge} fell silent")
        ours.__cause__ = error
    return ours


def closed_early(edge: str) -> AdaptiveGenError:
    """A stream that ended without its last event: the edge is going down."""
    return NodeUnavailable(f"the edge at {edge} closed the connection")
