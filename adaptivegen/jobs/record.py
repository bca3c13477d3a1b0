"""The job record and its transitions. Pure: a record and an event go in, the next record or a typed error comes out.

The record is an index (NATS KV) that can be rebuilt from the object store at any time. Its status moves only so:

    queued ------claim------> in_progress ---manifest---> completed | failed | cancelled
      |  ^                        |   |
      |  `---------requeue--------'   `--claim (lease over, or the same worker again): epoch + 1
      `---draft-only draft stored---> completed (no final) ---upgrade---> queued
      `---manifest (cancelled, hit)-> completed | cancelled

The epoch is the fencing token: whoever holds an older one may not write.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from adaptivegen.errors import Conflict, PreconditionFailed
from adaptivegen.jobs.spec import DraftManifest, Failure, JobSpec, Manifest, Media

Status = Literal["queued", "in_progress", "completed", "failed", "cancelled"]
TERMINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
NO_DRAFT_NOTE = "no draft was stored in time, so the cloud made a final instead"
MAX_CLAIMS = 3  # a job claimed this often without an outcome is poison
ClaimVerdict = Literal["claim", "held", "ended", "poison"]


class JobRecord(BaseModel):
    """The state of one video as every edge and scheduler reads it. Times are wall nanoseconds, `eta_s` and `gpu_s` (of
    a worker, for the final) seconds.

    model: as the client asked for it; cloud_model: its version that is to make the final; made_with, failed_with:
    see `Manifest`; drafted_with: the version of the draft model that made the draft; session: the request's.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    tenant: str
    status: Status
    epoch: int = 0
    attempts: int = 0
    prompt: str
    model: str
    cloud_model: str = ""
    size: str
    seconds: float
    seed: int
    intent: str
    plan: str
    edge_id: str
    want_final: bool
    worker_id: str = ""
    incarnation: str = ""  # which life of that worker: ids given twice by mistake must not share a job
    lease_expires_at_ns: int = 0
    progress_percent: int = 0
    eta_s: float = 0.0
    draft: Media | None = None
    final: Media | None = None
    draft_steps: int = 0
    final_steps: int = 0
    gpu_s: float = 0.0
    made_with: str = ""
    failed_with: str = ""
    drafted_with: str = ""
    session: str = ""
    cached: bool = False
    error: Failure | None = None
    last_error: Failure | None = None  # why the latest attempt ended without an outcome
    notes: tuple[str, ...] = ()
    created_at_ns: int
    started_at_ns: int = 0
    draft_at_ns: int = 0
    completed_at_ns: int = 0
    updated_at_ns: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.status in TERMINAL

    @property
    def model_version(self) -> str:
        """The version of the model that made the final, or is to make it."""
        return self.made_with or self.cloud_model or self.model

    @property
    def key(self) -> str:
        """Key in the `jobs` bucket."""
        return f"{self.tenant}.{self.id}"

    def encode(self) -> bytes:
        """JSON as stored in the bucket."""
        return self.model_dump_json().encode()


def decode_record(data: bytes) -> JobRecord | None:
    """The record, or None when this version cannot read it (another version's, or damaged)."""
    try:
        return JobRecord.model_validate_json(data)
    except ValidationError:
        return None


def salvage(rebuilt: JobRecord, unreadable: bytes) -> JobRecord:
    """A record rebuilt from the object store, with what only the index knows, where it can be read from the unreadable
    one: the counts (an epoch must not be given twice) and who holds the job (a reader of an older version must not put
    a newer worker off)."""
    try:
        held = json.loads(unreadable)
        counts = {name: held[name] for name in ("epoch", "attempts") if type(held.get(name)) is int}
        holder, until_ns = held.get("worker_id"), held.get("lease_expires_at_ns")
        leased = held.get("status") == "in_progress" and type(holder) is str and type(until_ns) is int
    except (ValueError, AttributeError, RecursionError):
        return rebuilt
    update: dict[str, object] = {name: max(getattr(rebuilt, name), count) for name, count in counts.items()}
    if leased and rebuilt.status == "queued":
        update |= {"status": "in_progress", "worker_id": holder, "lease_expires_at_ns": until_ns}
    return rebuilt.model_copy(update=update)


def new_record(spec: JobSpec) -> JobRecord:
    """The record of a job just submitted."""
    request = spec.request
    chosen = spec.decision.chosen()
    return JobRecord(
        id=spec.id,
        tenant=spec.tenant,
        status="queued",
        prompt=request.prompt,
        model=request.model,
        cloud_model=spec.cloud_model,
        session=request.session,
        size=request.size,
        seconds=request.seconds,
        seed=request.seed or 0,
        intent=request.intent,
        plan=spec.decision.plan,
        edge_id=spec.decision.edge_id,
        want_final=spec.want_final,
        eta_s=(chosen.final_s or 0.0) if chosen else 0.0,
        notes=spec.notes,
        created_at_ns=spec.created_at_ns,
        updated_at_ns=spec.created_at_ns,
    )


def judge_claim(
    record: JobRecord, *, worker_id: str, now_ns: int, lease_s: float, incarnation: str = ""
) -> ClaimVerdict:
    """Whether this life of `worker_id` may claim the job now.

    `held`: the lease of another, or of another life, still runs. A lease that ends later than two of ours from now is
    another clock's mistake, and no reason to wait. A worker may take its own job again at once: it asks only when it is
    not working on it. `poison`: claimed `MAX_CLAIMS` times without an outcome.
    """
    if record.ended:
        return "ended"
    left_s = (record.lease_expires_at_ns - now_ns) / 1e9
    mine = (record.worker_id, record.incarnation) == (worker_id, incarnation)
    if record.status == "in_progress" and 0 < left_s <= 2 * lease_s and not mine:
        return "held"
    return "poison" if record.attempts >= MAX_CLAIMS else "claim"


def claim(record: JobRecord, *, worker_id: str, now_ns: int, lease_s: float, incarnation: str = "") -> JobRecord:
    """Take the job: in progress, a new epoch, one more attempt. Raises Conflict unless `judge_claim` says claim."""
    verdict = judge_claim(record, worker_id=worker_id, now_ns=now_ns, lease_s=lease_s, incarnation=incarnation)
    if verdict != "claim":
        raise Conflict(f"job {record.id} cannot be claimed: {verdict}")
    return record.model_copy(
        update={
            "status": "in_progress",
            "epoch": record.epoch + 1,
            "attempts": record.attempts + 1,
            "worker_id": worker_id,
            "incarnation": incarnation,
            "lease_expires_at_ns": now_ns + round(lease_s * 1e9),
            "started_at_ns": record.started_at_ns or now_ns,
            "updated_at_ns": now_ns,
        }
    )


def check_fence(record: JobRecord, *, epoch: int, worker_id: str) -> None:
    """Raise PreconditionFailed unless `worker_id` still holds the job at `epoch`. The worker counts as well, because
    epochs begin anew when the index was lost."""
    if record.status != "in_progress" or record.epoch != epoch or record.worker_id != worker_id:
        holder = f"{record.status} at epoch {record.epoch} of {record.worker_id or 'nobody'}"
        raise PreconditionFailed(f"job {record.id} is {holder}; {worker_id} held epoch {epoch}")


def renew(
    record: JobRecord, *, epoch: int, worker_id: str, now_ns: int, lease_s: float, progress_percent: int, eta_s: float
) -> JobRecord:
    """Extend the lease and tell the progress; it never goes back. Raises PreconditionFailed when fenced off."""
    check_fence(record, epoch=epoch, worker_id=worker_id)
    return record.model_copy(
        update={
            "lease_expires_at_ns": now_ns + round(lease_s * 1e9),
            "progress_percent": max(record.progress_percent, min(99, progress_percent)),
            "eta_s": eta_s,
            "updated_at_ns": now_ns,
        }
    )


def give_back(
    record: JobRecord,
    *,
    epoch: int,
    worker_id: str,
    now_ns: int,
    counts: bool,
    error: Failure | None = None,
    failed_with: str = "",
) -> JobRecord:
    """Return an unfinished job: queued again, free for any worker. The attempt `counts` when the job itself is to
    blame (it fails as poison in the end), not for a drain, a full disk or a lost broker; failed_with: the version of
    the model with which it was made. Raises PreconditionFailed."""
    check_fence(record, epoch=epoch, worker_id=worker_id)
    return record.model_copy(
        update={
            "status": "queued",
            "attempts": record.attempts if counts else record.attempts - 1,
            "worker_id": "",
            "lease_expires_at_ns": 0,
            "last_error": error or record.last_error,
            "failed_with": record.failed_with or (failed_with if counts else ""),
            "updated_at_ns": now_ns,
        }
    )


def draft_stored(record: JobRecord, draft: DraftManifest) -> JobRecord:
    """The draft is there. A draft-only job is completed by it; any other goes on. An ended job keeps its outcome."""
    update: dict[str, object] = {
        "draft": draft.media,
        "draft_steps": draft.steps,
        "drafted_with": draft.made_with,
        "notes": tuple(dict.fromkeys((*record.notes, *draft.notes))),
        "draft_at_ns": record.draft_at_ns or draft.completed_at_ns,
        "updated_at_ns": max(record.updated_at_ns, draft.completed_at_ns),
    }
    if not record.want_final and record.status == "queued":
        update |= {"status": "completed", "completed_at_ns": draft.completed_at_ns, "eta_s": 0.0}
    return record.model_copy(update=update)


def upgrade(record: JobRecord, *, plan: str, eta_s: float, now_ns: int) -> JobRecord:
    """Ask for the final of a draft-only job; asking twice changes nothing. Raises Conflict if there is no draft."""
    if record.want_final and record.status != "cancelled" and record.status != "failed":
        return record
    if record.want_final or record.status in ("cancelled", "failed"):
        raise Conflict(f"video {record.id} is {record.status}; only a draft can be upgraded")
    return record.model_copy(
        update={
            "status": "queued",
            "want_final": True,
            "plan": plan,
            "progress_percent": 0,
            "eta_s": eta_s,
            "completed_at_ns": 0,
            "updated_at_ns": now_ns,
        }
    )


def forgiven(record: JobRecord, *, worker_id: str, epochs: frozenset[int], incarnation: str = "") -> JobRecord:
    """Take the last attempt off if it is that of this life of `worker_id` at one of `epochs`, and still unsettled: it
    ended by the platform's fault, and could not be given back then."""
    mine = (record.worker_id, record.incarnation) == (worker_id, incarnation)
    unsettled = record.status == "in_progress" and mine and record.epoch in epochs
    return record.model_copy(update={"attempts": max(0, record.attempts - 1)}) if unsettled else record


def hand_to_cloud(record: JobRecord, *, now_ns: int) -> JobRecord:
    """A draft-only job whose draft was not stored in time, since its edge died or for what else, gets a final instead,
    and says so. Any other stays as it is."""
    if record.status != "queued" or record.want_final or record.draft is not None:
        return record
    handed = upgrade(record, plan="cloud", eta_s=0.0, now_ns=now_ns)
    return handed.model_copy(update={"notes": tuple(dict.fromkeys((*handed.notes, NO_DRAFT_NOTE)))})


def touched(record: JobRecord, *, now_ns: int) -> JobRecord:
    """Note that an open job was looked after now."""
    return record if record.ended else record.model_copy(update={"updated_at_ns": now_ns})


def apply_manifest(record: JobRecord, manifest: Manifest) -> JobRecord:
    """Write the job's one outcome into the record; applying it again changes nothing."""
    completed = manifest.outcome == "completed"
    return record.model_copy(
        update={
            "status": manifest.outcome,
            "epoch": max(record.epoch, manifest.epoch),
            "worker_id": manifest.worker_id or record.worker_id,
            "plan": manifest.plan or record.plan,
            "final": manifest.final,
            "final_steps": manifest.final_steps,
            "gpu_s": manifest.gpu_s,
            "made_with": manifest.made_with,
            "failed_with": record.failed_with or manifest.failed_with,
            "drafted_with": manifest.drafted_with or record.drafted_with,
            "cached": manifest.cached,
            "error": manifest.error,
            "notes": tuple(dict.fromkeys((*record.notes, *manifest.notes))),
            "progress_percent": 100 if completed else record.progress_percent,
            "eta_s": 0.0,
            "lease_expires_at_ns": 0,
            "completed_at_ns": manifest.finished_at_ns,
            "updated_at_ns": max(record.updated_at_ns, manifest.finished_at_ns),
        }
    )


def rebuild(spec: JobSpec, *, draft: DraftManifest | None, manifest: Manifest | None) -> JobRecord:
    """The record as the object store tells it, for a lost or stale index. `spec` is the upgrade's, once one exists."""
    record = new_record(spec)
    if draft is not None:
        record = draft_stored(record, draft)
    if manifest is not None:
        record = apply_manifest(record, manifest)
    return record
