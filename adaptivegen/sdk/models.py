"""What an edge tells a client: videos, their media, their events. Pure.

Decides how an answer is read. Fields an edge adds later are ignored and event types it adds later are passed on, so
that an older client keeps working.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from adaptivegen.errors import AdaptiveGenError, Cancelled, GenerationFailed, InternalError
from adaptivegen.sdk.sse import ServerEvent

ENDED = frozenset({"completed", "failed", "cancelled"})


class Clip(BaseModel):
    """One stored clip. Sizes in pixels and bytes; `sha256` is of the file's bytes.

    familiarity: how near the prompt is to what the model was trained on, up to 1; None where the model cannot tell.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    sha256: str
    size_bytes: int
    width: int
    height: int
    frames: int
    fps: float
    familiarity: float | None = None


class VideoFailure(BaseModel):
    """Why a video failed: a stable code and a sentence."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    code: str
    message: str = ""


class Video(BaseModel):
    """A video as an edge reports it. `*_at_ns` are wall nanoseconds, 0 while not yet; `eta_s` seconds to the final."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    status: str
    model: str = ""
    model_version: str = ""
    draft_model_version: str = ""
    progress: int = 0
    prompt: str | None = None
    seconds: str = ""
    size: str = ""
    error: VideoFailure | None = None
    seed: int = 0
    intent: str = ""
    plan: str = ""
    edge_id: str = ""
    worker_id: str = ""
    cached: bool = False
    notes: tuple[str, ...] = ()
    eta_s: float | None = None
    draft_steps: int = 0
    final_steps: int = 0
    draft: Clip | None = None
    final: Clip | None = None
    created_at_ns: int = 0
    draft_at_ns: int = 0
    started_at_ns: int = 0
    completed_at_ns: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.status in ENDED

    @property
    def clip(self) -> Clip | None:
        """The best clip there is: the final, else the draft."""
        return self.final or self.draft

    def failure(self) -> AdaptiveGenError | None:
        """The error of a video that ended without a clip: GenerationFailed (its `param` is the code of the job's
        error) or Cancelled. None for any other video."""
        if self.status == "cancelled":
            return Cancelled(f"video {self.id} was cancelled")
        if self.status == "failed":
            cause = self.error or VideoFailure(code="generation_failed", message="no reason was given")
            return GenerationFailed(f"video {self.id} failed ({cause.code}): {cause.message}", param=cause.code)
        return None


@dataclass(frozen=True, slots=True)
class VideoPage:
    """Some of the caller's videos, and whether more follow. partial: the edge that answered is cut off, and lists only
    those that it keeps itself; the others are not gone."""

    videos: list[Video]
    has_more: bool
    partial: bool = False


class VideoEvent(BaseModel):
    """One event of a video. `step` of `steps` are done in the stage; `look_jpeg` is a frame of a draft look or b""."""

    model_config = ConfigDict(frozen=True)

    id: str
    type: str
    at_ns: int
    step: int
    steps: int
    look_jpeg: bytes
    video: Video

    @property
    def final(self) -> bool:
        """Whether the stream ends with this event."""
        return self.type in ENDED


def _object(text: str | bytes, what: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise InternalError(f"the edge sent {what} that is not JSON: {text[:80]!r}") from exc
    if not isinstance(value, dict):
        raise InternalError(f"the edge sent {what} that is not an object: {text[:80]!r}")
    return value


def _video(value: object) -> Video:
    try:
        return Video.model_validate(value)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InternalError(f"the edge sent a video that cannot be read: {place}: {first['msg']}") from exc


def parse_video(body: bytes) -> Video:
    """A Video from the body of an answer; raises InternalError."""
    return _video(_object(body, "a video"))


def parse_videos(body: bytes) -> VideoPage:
    """One page of a list; raises InternalError."""
    page = _object(body, "a list")
    data = page.get("data")
    if not isinstance(data, list):
        raise InternalError("the edge sent a list without data")
    videos = [_video(entry) for entry in data]
    return VideoPage(videos, has_more=bool(page.get("has_more")), partial=bool(page.get("partial")))


def parse_data(body: bytes) -> list[dict[str, object]]:
    """The `data` of a list whose entries are taken as they are; raises InternalError."""
    data = _object(body, "a list").get("data")
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise InternalError("the edge sent a list without data")
    return data


def parse_event(raw: ServerEvent) -> VideoEvent:
    """A typed event from one event of the stream; raises InternalError."""
    value = _object(raw.data, "an event")
    try:
        return VideoEvent(
            id=raw.id,
            type=str(value.get("type") or raw.event),
            at_ns=_whole(value.get("at_ns")),
            step=_whole(value.get("step")),
            steps=_whole(value.get("steps")),
            look_jpeg=base64.b64decode(str(value.get("look_jpeg_base64") or ""), validate=True),
            video=_video(value.get("video")),
        )
    except (ValueError, binascii.Error) as exc:
        raise InternalError(f"the edge sent an event that cannot be read: {exc}") from exc


def _whole(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value
