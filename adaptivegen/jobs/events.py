"""Events of a job: what is published on `ag.events.<tenant>.<id>` (core NATS, lossy) and streamed to clients. Pure.

An event carries the whole record after it, so a client that misses some has lost nothing but the looks. Event ids are
unique and compared only for equality; a stream resumes after the id the client saw last, or starts with a snapshot.
"""

from __future__ import annotations

import base64
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from adaptivegen.errors import InvalidRequest
from adaptivegen.jobs.record import JobRecord

EventType = Literal[
    "snapshot",
    "queued",
    "draft.started",
    "draft.look",
    "draft.completed",
    "started",
    "progress",
    "completed",
    "failed",
    "cancelled",
]


class JobEvent(BaseModel):
    """One event. `step` of `steps` are done in the stage; `look_jpeg_base64` is a frame of a draft look."""

    model_config = ConfigDict(frozen=True)

    id: str
    type: EventType
    at_ns: int
    record: JobRecord
    step: int = 0
    steps: int = 0
    look_jpeg_base64: str = ""

    @property
    def final(self) -> bool:
        """Whether the stream ends with this event."""
        return self.type in ("completed", "failed", "cancelled")

    @property
    def look_jpeg(self) -> bytes:
        """The look as JPEG bytes; empty when the event has none."""
        return base64.b64decode(self.look_jpeg_base64)

    def encode(self) -> bytes:
        """JSON for the wire."""
        return self.model_dump_json().encode()


def make_event(
    kind: EventType,
    record: JobRecord,
    *,
    producer: str,
    now_ns: int,
    step: int = 0,
    steps: int = 0,
    look_jpeg: bytes = b"",
) -> JobEvent:
    """An event of `producer` (a node id); its id is the time and the producer."""
    return JobEvent(
        id=f"{now_ns}-{producer}",
        type=kind,
        at_ns=now_ns,
        record=record,
        step=step,
        steps=steps,
        look_jpeg_base64=base64.b64encode(look_jpeg).decode(),
    )


def terminal_event(record: JobRecord, *, producer: str, now_ns: int) -> JobEvent:
    """The event that ends the stream of an ended job."""
    if not record.ended:
        raise InvalidRequest.field("record.status", record.status, "an ended status")
    kind: EventType = (
        "completed" if record.status == "completed" else "failed" if record.status == "failed" else "cancelled"
    )
    return make_event(kind, record, producer=producer, now_ns=now_ns)


def decode_event(data: bytes) -> JobEvent:
    """Parse an event; raises InvalidRequest."""
    try:
        return JobEvent.model_validate_json(data)
    except ValidationError as exc:
        raise InvalidRequest(f"not a job event: {exc.errors(include_url=False)[0]['msg']}") from exc


def event_subject(tenant: str, job_id: str) -> str:
    """`ag.events.<tenant>.<job>`."""
    return f"ag.events.{tenant}.{job_id}"


def cancel_subject(job_id: str) -> str:
    """`ag.cancel.<job>`: a hint to stop; the manifest is the truth."""
    return f"ag.cancel.{job_id}"


ALL_CANCELS = "ag.cancel.*"
