"""Why requests were placed as they were: one job with what became of it, and the last decisions of this scheduler.

What was refused is no job: nothing of it is stored, and only the scheduler that refused it knows it, for a while.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adaptivegen.errors import BrokerUnavailable, NotFound
from adaptivegen.ids import check_name, check_video_id
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import Deleted
from adaptivegen.jobs.store import JobStore
from adaptivegen.models.card import ModelCard
from adaptivegen.models.pairs import sentence
from adaptivegen.placement import Decision, plan_of
from adaptivegen.rpc.admin_rows import DecisionInfo, Explanation, JobInfo
from scheduler.decide.recent import Decided, Recent

MAX_REASONS, MAX_REASON_CHARS = 20, 500
MAX_LISTED = 20_000  # specs that are looked through for one that the index does not know
REFUSED = "refused"  # in place of a job's status


class Explainer:
    """Explains one job, or lists what was decided lately. cards: by name."""

    def __init__(self, jobs: JobStore, recent: Recent, cards: Mapping[str, ModelCard]) -> None:
        self._jobs = jobs
        self._recent = recent
        self._cards = cards

    def decisions(self, tenant: str, limit: int) -> list[DecisionInfo]:
        """The last of them, refusals with them, newest first. Raises InvalidRequest."""
        if tenant:
            check_name(tenant, field="tenant")
        return decision_rows(self._recent, limit=limit, tenant=tenant)

    async def explain(self, job_id: str, tenant: str) -> Explanation:
        """The job, its stored decision and what became of it. Raises NotFound, BrokerUnavailable."""
        check_video_id(job_id, field="job_id")
        if tenant:
            check_name(tenant, field="tenant")
        try:
            return await self._job(job_id, tenant or await self._tenant_of(job_id))
        except Deleted:
            raise  # it was taken after it was refused
        except (NotFound, BrokerUnavailable):
            refused = self._refused(job_id, tenant)
            if refused is None:
                raise
            return refused

    async def _job(self, job_id: str, tenant: str) -> Explanation:
        store_only = not self._jobs.bus.connected
        record = await (self._jobs.from_store if store_only else self._jobs.find)(tenant, job_id)
        spec = await self._jobs.spec(tenant, job_id)
        decision = spec.decision
        draft = await self._jobs.draft(tenant, job_id)
        notes = _notes(record, decision, drafted_by=draft.made_by if draft is not None else "")
        first, last = self._cards.get(spec.draft_model), self._cards.get(spec.cloud_model)
        if first is not None and last is not None and decision.makes_final and decision.plan != "cloud":
            notes = (*notes, sentence(first, last))
        return Explanation(job=job_info(record), decision=decision, notes=notes)

    def _refused(self, job_id: str, tenant: str) -> Explanation | None:
        """Of a request that was refused here lately."""
        asked = (one for one in reversed(self._recent.decisions) if one.decision.job_id == job_id)
        last = next((one for one in asked if one.decision.plan == "refuse" and tenant in ("", one.tenant)), None)
        if last is None:
            return None
        decision = last.decision
        job = JobInfo(
            id=job_id,
            tenant=last.tenant,
            status=REFUSED,
            plan=decision.plan,
            edge_id=decision.edge_id,
            worker_id="",
            progress_percent=0,
            attempts=0,
            created_at_ns=decision.decided_at_ns,
            completed_at_ns=0,
            error_code=decision.refused,
            error_message=decision.reasons[0] if decision.reasons else "",
        )
        return Explanation(job=job, decision=decision, notes=())

    async def _tenant_of(self, job_id: str) -> str:
        """By the index, else by what is stored: there is something left of a deleted video, too."""
        if not self._jobs.bus.connected:  # at once: an operator should not wait for a deadline to learn that
            raise BrokerUnavailable("the broker cannot be reached; the jobs' index is kept there")
        for tenant, known in await self._jobs.index.tenants_and_ids():
            if known == job_id:
                return tenant
        listed = 0
        async for tenant, known in self._jobs.specs():
            listed += 1
            if known == job_id:
                return tenant
            if listed >= MAX_LISTED:
                said = f"nor among the first {MAX_LISTED} that are stored; with its tenant the store can be asked"
                raise NotFound(f"no job {job_id} in the index, {said}", param="job_id")
        said = "if it was refused, only the scheduler that did so knows it, for a while"
        raise NotFound(f"no job {job_id} in the index or the store; {said}", param="job_id")


def decision_rows(recent: Recent, *, limit: int, tenant: str = "") -> list[DecisionInfo]:
    """The last decisions, of one tenant or (empty) of all, newest first."""

    def of_tenant() -> Iterator[DecisionInfo]:
        found = (one for one in reversed(recent.decisions) if tenant in ("", one.tenant))
        for _, one in zip(range(limit), found, strict=False):
            yield _decision_info(one)

    return list(of_tenant())


def _decision_info(decided: Decided) -> DecisionInfo:
    decision = decided.decision
    chosen = decision.chosen()
    return DecisionInfo(
        at_ns=decision.decided_at_ns,
        job_id=decision.job_id,
        tenant=decided.tenant,
        plan=decision.plan,
        edge_id=decision.edge_id,
        draft_edge_id=decision.draft_edge_id,
        pool=decision.pool,
        draft_s=chosen.draft_s if chosen else None,
        final_s=chosen.final_s if chosen else None,
        qoe=chosen.qoe if chosen else None,
        moved_bytes=chosen.moved_bytes if chosen else None,
        reasons=tuple(reason[:MAX_REASON_CHARS] for reason in decision.reasons[:MAX_REASONS]),
        refused=decision.refused,
        refused_param=decision.refused_param,
    )


def job_info(record: JobRecord) -> JobInfo:
    """A job as operators are told of it."""
    return JobInfo(
        id=record.id,
        tenant=record.tenant,
        status=record.status,
        plan=record.plan,
        edge_id=record.edge_id,
        worker_id=record.worker_id,
        progress_percent=record.progress_percent,
        attempts=record.attempts,
        created_at_ns=record.created_at_ns,
        completed_at_ns=record.completed_at_ns,
        error_code=record.error.code if record.error else "",
        error_message=record.error.message if record.error else "",
    )


def _notes(record: JobRecord, decision: Decision, *, drafted_by: str) -> tuple[str, ...]:
    """The job's own notes, and where the outcome differs from the decision without a note saying so."""
    notes = list(record.notes)
    if drafted_by not in ("", decision.drafter):
        notes.append(f"Edge {decision.drafter} was to draft, and edge {drafted_by} did.")
    if record.plan == plan_of(decision, record.final_steps) and record.notes:  # these say why it has other steps
        return tuple(notes)
    if record.plan != decision.plan:
        notes.append(f"Plan {decision.plan} was decided, and plan {record.plan} was done.")
    if record.status == "completed" and record.final is not None and record.final_steps != decision.final_steps:
        notes.append(f"{decision.final_steps} steps were decided, and {record.final_steps} were run.")
    return tuple(notes)
