"""What a final starts from: the draft (from the edge that makes it, else from the object store), a reference, or noise.

Decides the order and what is said about it. An edge that is gone, slow or has forgotten the draft is no failure of
the job: the final then starts from the stored draft or from noise, and the job's notes say so.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobStore
from adaptivegen.nodes import STORE_GET
from adaptivegen.rpc.channel import ClientTls
from adaptivegen.rpc.draft import FetchedDraft, fetch_draft
from adaptivegen.telemetry import get_logger
from adaptivegen.ways import Transfers


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

    def __init__(
        self, *, jobs: JobStore, wait_s: float, tls: ClientTls | None, clock: Clock, transfers: Transfers
    ) -> None:
        """transfers: is told what fetching takes, beside waiting for a draft that is being made."""
        self._clock = clock
        self._transfers = transfers
        self._jobs = jobs
        self._wait_s = wait_s
        self._tls = tls

    async def draft(self, spec: JobSpec) -> Start:
        """The draft of `spec`, waiting up to `wait_s` for one being made. A draft that cannot be had raises nothing."""
        if (stored := await self._stored(spec)) is not None:
            return stored
        try:
            fetched = await self._from_edge(spec)
            return Start(mp4=fetched.mp4, drafted_with=fetched.made_with)
        except AdaptiveGenError as exc:
            get_logger().warning("draft_not_fetched", job_id=spec.id, edge=spec.decision.edge_id, error=exc.message)
        if (stored := await self._stored(spec)) is not None:
            return stored
        return Start(note=f"the draft of {spec.decision.edge_id} could not be had, so the final was made from noise")

    async def _from_edge(self, spec: JobSpec) -> FetchedDraft:
        fetched = await fetch_draft(
            spec.edge_grpc_address,
            tenant=spec.tenant,
            job_id=spec.id,
            token=spec.draft_token,
            deadline_s=self._wait_s,
            tls=self._tls,
            clock=self._clock,
        )
        if fetched.fetch_s is not None:
            now_s = self._clock.monotonic_s()
            self._transfers.observe(spec.decision.edge_id, len(fetched.mp4), fetched.fetch_s, now_s=now_s)
        return fetched

    async def reference(self, spec: JobSpec) -> Start:
        """The uploaded clip a request starts from, if it has one; raises NotFound or StorageFailure."""
        found = spec.request.reference
        return Start(mp4=await self._jobs.blob.get(found.key)) if found else Start()

    async def _stored(self, spec: JobSpec) -> Start | None:
        draft = await self._jobs.draft(spec.tenant, spec.id)
        if draft is None:
            return None
        asked_s = self._clock.monotonic_s()
        try:
            mp4 = await self._jobs.blob.get(draft.media.key)
        except AdaptiveGenError as exc:
            get_logger().warning("stored_draft_unreadable", job_id=spec.id, error=exc.message)
            return None
        now_s = self._clock.monotonic_s()
        self._transfers.observe(STORE_GET, len(mp4), now_s - asked_s, now_s=now_s)
        return Start(mp4=mp4, drafted_with=draft.made_with)
