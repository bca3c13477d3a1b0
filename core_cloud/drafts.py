"""What a final starts from: the draft (from the edge that makes it, else from the object store), a reference, or noise.

Decides the order and what is said about it. An edge that is gone, slow or has forgotten the draft is no failure of
the job: the final then starts from the stored draft or from noise, and the job's notes say so.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptivegen.errors import AdaptiveGenError
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobStore
from adaptivegen.rpc.channel import ClientTls
from adaptivegen.rpc.draft import fetch_draft
from adaptivegen.telemetry import get_logger


@dataclass(frozen=True, slots=True)
class Start:
    """What generation starts from: the bytes of an MP4, or None for noise; `note` says what went otherwise.

    drafted_with: the version of the draft model that made it, where it is a draft and that is told.
    """

    mp4: bytes | None = None
    note: str = ""
    drafted_with: str = ""


class DraftSource:
    """Fetches start clips for one worker."""

    def __init__(self, *, jobs: JobStore, wait_s: float, tls: ClientTls | None) -> None:
        self._jobs = jobs
        self._wait_s = wait_s
        self._tls = tls

    async def draft(self, spec: JobSpec) -> Start:
        """The draft of `spec`, waiting up to `wait_s` for one being made. A draft that cannot be had raises nothing."""
        if (stored := await self._stored(spec)) is not None:
            return stored
        try:
            made = await fetch_draft(
                spec.edge_grpc_address,
                tenant=spec.tenant,
                job_id=spec.id,
                token=spec.draft_token,
                deadline_s=self._wait_s,
                tls=self._tls,
            )
            return Start(mp4=made.mp4, drafted_with=made.made_with)
        except AdaptiveGenError as exc:
            get_logger().warning("draft_not_fetched", job_id=spec.id, edge=spec.decision.edge_id, error=exc.message)
        if (stored := await self._stored(spec)) is not None:
            return stored
        return Start(note=f"the draft of {spec.decision.edge_id} could not be had, so the final was made from noise")

    async def reference(self, spec: JobSpec) -> Start:
        """The uploaded clip a request starts from, if it has one; raises NotFound or StorageFailure."""
        found = spec.request.reference
        return Start(mp4=await self._jobs.blob.get(found.key)) if found else Start()

    async def _stored(self, spec: JobSpec) -> Start | None:
        draft = await self._jobs.draft(spec.tenant, spec.id)
        if draft is None:
            return None
        try:
            return Start(mp4=await self._jobs.blob.get(draft.media.key), drafted_with=draft.made_with)
        except AdaptiveGenError as exc:
            get_logger().warning("stored_draft_unreadable", job_id=spec.id, error=exc.message)
            return None
