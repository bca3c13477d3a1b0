"""Records, events and cards as JSON of the client API: the OpenAI videos shape with extras. Pure."""

from __future__ import annotations

import json
from typing import Any

from adaptivegen.jobs.events import JobEvent
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import Media
from adaptivegen.models.card import ModelCard
from adaptivegen.rpc.video import Page
from edge_node.spool.rules import CutOff

POLL_MIN_MS = 250
POLL_MAX_MS = 5000


def video(record: JobRecord) -> dict[str, Any]:
    """The Video object."""
    return {
        "id": record.id,
        "object": "video",
        "model": record.model,
        "model_version": record.model_version,
        "draft_model_version": record.drafted_with,
        "status": record.status,
        "progress": record.progress_percent,
        "created_at": record.created_at_ns // 1_000_000_000,
        "completed_at": record.completed_at_ns // 1_000_000_000 or None,
        "expires_at": None,
        "prompt": record.prompt,
        "remixed_from_video_id": None,
        "seconds": f"{record.seconds:g}",
        "size": record.size,
        "error": {"code": record.error.code, "message": record.error.message} if record.error else None,
        "seed": record.seed,
        "intent": record.intent,
        "plan": record.plan,
        "edge_id": record.edge_id,
        "worker_id": record.worker_id,
        "cached": record.cached,
        "notes": list(record.notes),
        "eta_s": round(record.eta_s, 3),
        "draft_steps": record.draft_steps,
        "final_steps": record.final_steps,
        "draft": media(record.draft),
        "final": media(record.final),
        "created_at_ns": record.created_at_ns,
        "draft_at_ns": record.draft_at_ns,
        "started_at_ns": record.started_at_ns,
        "completed_at_ns": record.completed_at_ns,
    }


def media(found: Media | None) -> dict[str, Any] | None:
    """A media file; its key stays inside."""
    return found.model_dump(exclude={"key", "content_type"}) if found else None


def page(found: Page) -> dict[str, Any]:
    """A page of videos; that it is not partial is not said."""
    records = found.records
    return {
        **({"partial": True} if found.partial else {}),
        "object": "list",
        "data": [video(record) for record in records],
        "has_more": found.has_more,
        "first_id": records[0].id if records else None,
        "last_id": records[-1].id if records else None,
    }


def cut_off(cut: CutOff | None) -> dict[str, Any]:
    """How an edge says that it is cut off; nothing while it is not."""
    if cut is None:
        return {}
    return {"cut_off": {"why": cut.why, "for_s": round(cut.for_s, 1), "spooled_jobs": cut.jobs, "room": cut.has_room}}


def model(card: ModelCard) -> dict[str, Any]:
    """A model card as clients see it."""
    return {
        "id": card.name,
        "object": "model",
        "role": card.role,
        "version": card.version,
        "limits": card.limits.model_dump(mode="json"),
        "quality": {name: figure.model_dump(mode="json") for name, figure in card.quality.items()},
        "scores": [score.model_dump(mode="json") for score in card.scores],
    }


def event(happened: JobEvent) -> bytes:
    """A server-sent event."""
    data = {
        "type": happened.type,
        "at_ns": happened.at_ns,
        "step": happened.step,
        "steps": happened.steps,
        "look_jpeg_base64": happened.look_jpeg_base64,
        "video": video(happened.record),
    }
    return f"id: {happened.id}\nevent: {happened.type}\ndata: {json.dumps(data)}\n\n".encode()


def poll_after_ms(record: JobRecord) -> int:
    """When a polling client should ask again: an eighth of the time left, within limits."""
    return round(min(POLL_MAX_MS, max(POLL_MIN_MS, record.eta_s * 1000 / 8)))
