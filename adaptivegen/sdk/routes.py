"""Every call of the edge's HTTP API as a value, and every answer that is an error as a typed error. Pure.

Decides paths, headers, bodies and what an error answer means; sends nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from adaptivegen.errors import STATUS, AdaptiveGenError, InternalError, InvalidRequest, NodeUnavailable, from_wire
from adaptivegen.experience import Experience
from adaptivegen.ids import check_idempotency_key, check_video_id

Variant = Literal["video", "draft"]
REFERENCE = "input_reference"


@dataclass(frozen=True, slots=True)
class FilePart:
    """An upload: file name and bytes. The edge recognises the kind by the content, so the declared type is neutral."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request. Repeating any of them is safe: creations carry an idempotency key."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    json_body: Mapping[str, object] | None = None
    form: Mapping[str, str] | None = None
    file: FilePart | None = None


def submit_call(fields: Mapping[str, object], *, reference: FilePart | None, idempotency_key: str) -> Call:
    """Create a video. Fields that are None are left to the edge's defaults; with a reference the body is a form."""
    given = {name: value for name, value in fields.items() if value is not None}
    headers = {"idempotency-key": check_idempotency_key(idempotency_key)}
    if reference is None:
        for name, value in given.items():
            if isinstance(value, float) and not math.isfinite(value):  # JSON has no word for it
                raise InvalidRequest.field(name, value, "a finite number")
        return Call("POST", "/v1/videos", headers=headers, json_body=given)
    form = {name: str(value) for name, value in given.items()}
    return Call("POST", "/v1/videos", headers=headers, form=form, file=reference)


def video_path(video_id: str, *rest: str) -> str:
    """`/v1/videos/<id>/...`; raises InvalidRequest for what is not an id, so nothing else reaches a path."""
    return "/".join(("/v1/videos", check_video_id(video_id), *rest))


def status_call(video_id: str) -> Call:
    """Read a video."""
    return Call("GET", video_path(video_id))


def list_call(*, after: str | None, limit: int, order: Literal["asc", "desc"]) -> Call:
    """One page of videos."""
    params = {"limit": str(limit), "order": order}
    if after is not None:
        params["after"] = check_video_id(after, field="after")
    return Call("GET", "/v1/videos", params=params)


def models_call() -> Call:
    """The models and their limits."""
    return Call("GET", "/v1/models")


def events_call(video_id: str, *, last_event_id: str) -> Call:
    """The stream of a video's events, after the one seen last if there is one."""
    headers = {"accept": "text/event-stream"}
    if last_event_id:
        headers["last-event-id"] = last_event_id
    return Call("GET", video_path(video_id, "events"), headers=headers)


def content_call(video_id: str, *, variant: Variant, offset: int, sha256: str) -> Call:
    """The bytes of a clip from `offset`; asks for the whole again should the clip be another one by then."""
    headers = {"accept-encoding": "identity"}
    if offset:
        headers |= {"range": f"bytes={offset}-", "if-range": f'"{sha256}"'}
    return Call("GET", video_path(video_id, "content"), headers=headers, params={"variant": variant})


def cancel_call(video_id: str) -> Call:
    """Stop a video."""
    return Call("POST", video_path(video_id, "cancel"))


def delete_call(video_id: str) -> Call:
    """Delete a video; the edge answers a repeat alike."""
    return Call("DELETE", video_path(video_id))


def upgrade_call(video_id: str) -> Call:
    """Ask for the final of a draft."""
    return Call("POST", video_path(video_id, "upgrade"))


def rating_call(video_id: str, said: Experience) -> Call:
    """Say how good it was, with what this client measured; raises InvalidRequest."""
    said.check()
    silent = asdict(Experience(said.stars))
    measured = {name: value for name, value in asdict(said).items() if name == "stars" or value != silent[name]}
    body = {name: round(value, 3) if isinstance(value, float) else value for name, value in measured.items()}
    return Call("POST", video_path(video_id, "rating"), json_body=body)


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> AdaptiveGenError:
    """The typed error of an answer that is not a success."""
    retry_after_s = _seconds(headers.get("retry-after"))
    error: object = None
    try:
        answer = json.loads(body)
        error = answer.get("error") if isinstance(answer, dict) else None
    except ValueError:
        pass  # not from an edge: a proxy's page, say; the status decides below
    if isinstance(error, dict) and error.get("code"):
        param = error.get("param")
        return from_wire(
            str(error["code"]),
            str(error.get("message") or f"HTTP {status}"),
            param=str(param) if param is not None else None,
            retry_after_s=retry_after_s,
        )
    message = f"HTTP {status}: {body[:120].decode('utf-8', errors='replace')}"
    if status in (502, 503, 504):  # what a proxy answers when the edge behind it is away
        return NodeUnavailable(message, retry_after_s=retry_after_s)
    for cls, said in STATUS.items():
        if said.http == status and cls is not AdaptiveGenError:
            return cls(message, retry_after_s=retry_after_s)
    return InternalError(message, retry_after_s=retry_after_s)


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds; the date form is not used by edges and is left out."""
    try:
        seconds = float(value) if value is not None else None
    except ValueError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None
