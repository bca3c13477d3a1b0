"""What is stored about a job in the object store: spec, draft manifest, manifest. Pure data and keys.

The object store is the truth. A job exists once its spec does; it has ended once its manifest does. Both are
written once; the manifest by put-if-absent, so exactly one outcome wins.

    pending/<tenant>.<id>                 marker: this job may need work (what the reconciler scans)
    jobs/<tenant>/<id>/spec               JobSpec
    jobs/<tenant>/<id>/draft              DraftManifest
    jobs/<tenant>/<id>/upgrade            JobSpec of the final of a draft-only job, asked for later
    jobs/<tenant>/<id>/manifest           Manifest: completed, failed or cancelled
    out/<tenant>/<id>/<epoch>/<sha>.mp4   media; epoch 0 is the draft
    content/<tenant>/<content key>        ContentEntry: which final a content key has
    inputs/<tenant>/<id>/<ms>-<sha>       an attempt's upload, decoded and checked; the spec says which is the job's
    idempotency/<tenant>/<sha of key>     KeyBinding: which job an idempotency key has
    ratings/<tenant>/<id>                 Rating: how a person found it, last

A video that was deleted has a Tombstone in place of its spec, for ever (docs/adr/0029):

    deleting/<tenant>.<id>                marker: its removal may not be done
    holders/<tenant>/<owner>/<id>         written by a repeat before it refers to the media of another job, the owner
    jobs/<tenant>/<owner>/closed          the owner's media are going: no repeat may refer to them any more
"""

from __future__ import annotations

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict

from adaptivegen.errors import NotFound
from adaptivegen.placement import Decision
from adaptivegen.request import GenerationRequest

SCHEMA = 1
Outcome = Literal["completed", "failed", "cancelled"]


class Deleted(NotFound):
    """The video was there, and was deleted; whoever still works for it stops, and takes back what it has written."""


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True)

    def encode(self) -> bytes:
        """JSON as stored."""
        return self.model_dump_json().encode()


class Media(_Stored):
    """One stored clip. `key` ends in its SHA-256, so the bytes can always be checked.

    familiarity: how near the prompt is to what the model was trained on, up to 1, as the model itself told.
    """

    key: str
    sha256: str
    size_bytes: int
    width: int
    height: int
    frames: int
    fps: int
    content_type: str = "video/mp4"
    familiarity: float | None = None


class JobSpec(_Stored):
    """Everything needed to run the job on any machine; written before the client is answered."""

    schema_version: int = SCHEMA
    id: str
    tenant: str
    created_at_ns: int
    request: GenerationRequest
    content_key: str
    draft_model: str
    cloud_model: str
    draft_steps: int
    decision: Decision
    edge_grpc_address: str
    draft_token: str = ""  # shown by the worker to the edge when it fetches the draft
    want_final: bool
    upgrade: bool = False  # written for the final of a draft-only job, asked for later
    trace: dict[str, str] = {}
    notes: tuple[str, ...] = ()  # which its record begins with


class Tombstone(_Stored):
    """What stands in place of a deleted video's spec. by: who ordered it, empty for its tenant; content_key, owner:
    what its removal has to look at, empty where there is nothing or it could not be read (owner: the job whose media a
    repeat referred to)."""

    id: str
    tenant: str
    deleted_at_ns: int
    by: str = ""
    content_key: str = ""
    owner: str = ""


class DraftManifest(_Stored):
    """The stored draft of a job. made_by: the edge that drafted, made_with: the version of its model, empty where that
    was not noted; notes: what the video says of it."""

    media: Media
    steps: int
    completed_at_ns: int
    made_by: str = ""
    made_with: str = ""
    notes: tuple[str, ...] = ()


class Failure(_Stored):
    """A stable code of adaptivegen.errors and a sentence for the user."""

    code: str
    message: str


class Manifest(_Stored):
    """The one outcome of a job. gpu_s: seconds of the worker that its final took; made_with: the version of the model
    that made the final; failed_with: the one with which the first attempt that failed was made;
    drafted_with: the version of the draft model that made what it starts from, where that was told."""

    id: str
    tenant: str
    outcome: Outcome
    epoch: int
    finished_at_ns: int
    worker_id: str = ""
    final: Media | None = None
    final_steps: int = 0
    gpu_s: float = 0.0
    made_with: str = ""
    failed_with: str = ""
    drafted_with: str = ""
    plan: str = ""
    error: Failure | None = None
    cached: bool = False
    notes: tuple[str, ...] = ()


class ContentEntry(_Stored):
    """Which job made the final of a content key."""

    id: str
    final: Media
    draft: Media | None
    final_steps: int
    draft_steps: int


class KeyBinding(_Stored):
    """The job an idempotency key was first sent for, and the digest of that request's body."""

    id: str
    body: str
    at_ns: int = 0


def pending_key(tenant: str, job_id: str) -> str:
    """Marker of a job that may need work."""
    return f"pending/{tenant}.{job_id}"


def job_key(tenant: str, job_id: str, part: Literal["spec", "draft", "upgrade", "manifest", "closed"]) -> str:
    """Key of one stored part of a job."""
    return f"jobs/{tenant}/{job_id}/{part}"


def deleting_key(tenant: str, job_id: str) -> str:
    """Marker of a video whose removal may not be done."""
    return f"deleting/{tenant}.{job_id}"


def holders_of(tenant: str, owner: str) -> str:
    """Prefix of the repeats that refer to a job's media."""
    return f"holders/{tenant}/{owner}/"


def owner_of(media: Media) -> str:
    """Id of the job that a clip was made for; empty for a key that is none of ours."""
    parts = media.key.split("/")
    return parts[2] if len(parts) == 5 and parts[0] == "out" else ""


def media_key(tenant: str, job_id: str, epoch: int, sha256: str) -> str:
    """Key of a clip; the draft has epoch 0."""
    return f"out/{tenant}/{job_id}/{epoch}/{sha256}.mp4"


def content_index_key(tenant: str, content_key: str) -> str:
    """Key of the content index entry; tenants never share entries."""
    return f"content/{tenant}/{content_key}"


def idempotency_key(tenant: str, key: str) -> str:
    """Key of an idempotency key's binding."""
    return f"idempotency/{tenant}/{hashlib.sha256(key.encode()).hexdigest()}"


def input_key(tenant: str, job_id: str, sha256: str, *, now_ns: int) -> str:
    """Key of a job's uploaded reference; jobs never share one, so that it goes with its job, and neither do two
    attempts to submit one, so that what an attempt left behind can be removed (`uploads`)."""
    return f"inputs/{tenant}/{job_id}/{now_ns // 10**6:013d}-{sha256}"


def record_key(tenant: str, job_id: str) -> str:
    """Key of the job's record in the `jobs` bucket."""
    return f"{tenant}.{job_id}"
