"""How an edge comes to a decision on a request, and to the job's spec: asks the scheduler, else decides alone.

Owns nothing but who this edge is. Must not know where jobs are kept.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from adaptivegen.clock import Clock
from adaptivegen.errors import (
    AdaptiveGenError,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    QuotaExceeded,
    ResourceExhausted,
)
from adaptivegen.ids import new_token
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.models.card import ModelCard
from adaptivegen.placement import Decision, PlacementQuery, Placer, on_query, refusal_of
from adaptivegen.request import GenerationRequest, content_key
from adaptivegen.telemetry import carry, get_logger
from edge_node.alone import decide_alone, known_alone
from edge_node.draft.models import DraftModels
from edge_node.quotas import Quotas
from edge_node.spool.rules import Later, deadline_left_s
from edge_node.versions import Versions


@dataclass(frozen=True, slots=True)
class EdgeIdentity:
    """Who this edge is and what it offers."""

    node_id: str
    grpc_address: str
    pool: str
    default_model: str


@dataclass(frozen=True, slots=True)
class Models:
    """The versions that a request is to be made by; notes: why one is not that of its session."""

    cloud: ModelCard
    draft: ModelCard
    notes: tuple[str, ...] = ()


class Placing:
    """The decisions of one edge."""

    def __init__(
        self,
        *,
        identity: EdgeIdentity,
        versions: Versions,
        drafts: DraftModels,
        placer: Placer,
        clock: Clock,
        rng: random.Random,
        max_waiting_drafts: int,
        borrows: bool,
        quotas: Quotas,
    ) -> None:
        self._identity = identity
        self.versions = versions
        self.drafts = drafts
        self._placer = placer
        self._clock = clock
        self._rng = rng
        self._max_waiting_drafts = max_waiting_drafts
        self._borrows = borrows
        self._quotas = quotas

    def models(self, request: GenerationRequest, tenant: str) -> Models:
        """The versions for a new request, whose seed is drawn."""
        drafter = self.drafts.choose(request, tenant)
        return Models(self.versions.of(request, tenant), drafter.card, (drafter.note,) if drafter.note else ())

    def still(self, spec: JobSpec, drafted_with: str = "") -> Models:
        """Those of a job that goes on: of its final as long as it serves, of its draft the one that made it. Raises
        ModelNotFound."""
        cloud = self.versions.still(spec.request.model, spec.cloud_model)
        try:
            return Models(cloud, self.drafts.card(drafted_with or spec.draft_model))
        except AdaptiveGenError:  # it is not installed here any more
            return Models(cloud, self.drafts.serving)

    def query(
        self, tenant: str, job_id: str, request: GenerationRequest, models: Models, *, content_known: bool
    ) -> PlacementQuery:
        """What a scheduler is told of a request."""
        return PlacementQuery(
            job_id=job_id,
            tenant=tenant,
            edge_id=self._identity.node_id,
            intent=request.intent,
            draft_model=models.draft.name,
            draft_line=self.drafts.line,
            cloud_model=models.cloud.name,
            line=request.model,
            width=request.width,
            height=request.height,
            frames=request.frames,
            final_steps=request.steps or 0,
            content_known=content_known,
            has_reference=request.reference is not None,
            requested_plan=request.plan,
            session=request.session,
            draft_digest=models.draft.digest if self._borrows else "",
            tier=request.service_tier,
            deadline_s=request.deadline_s,
            allow_reduced=request.allow_reduced,
        )

    @staticmethod
    def content_key(request: GenerationRequest, models: Models) -> str:
        """By which repeats of a request find its final."""
        return content_key(request, cloud_digest=models.cloud.digest, draft_digest=models.draft.digest)

    async def decide(self, query: PlacementQuery) -> Decision:
        """Ask the scheduler; when none answers in time, or with anything but a decision on this job, decide alone,
        within the quotas that were heard last.

        Only what the client did wrong is the client's to hear, and a refusal: raises its error."""
        try:
            decision = on_query(await self._placer.place(query), query)
        except InvalidRequest:
            raise
        except ModelNotFound as exc:
            if query.cloud_model == query.line:
                raise
            get_logger().warning("version_not_known_to_scheduler", job_id=query.job_id, error=exc.message)
            return self.alone_within_quota(query, why=f"the scheduler does not know {query.cloud_model}")
        except AdaptiveGenError as exc:
            get_logger().warning("deciding_alone", job_id=query.job_id, code=exc.code, error=exc.message)
            return self.alone_within_quota(query, why=f"no scheduler answered ({exc.message})")
        if (refusal := refusal_of(decision)) is not None:
            get_logger().info("refused", job_id=query.job_id, tenant=query.tenant, code=refusal.code)
            raise refusal
        self._quotas.learn(query, decision)
        return decision

    def alone_within_quota(self, query: PlacementQuery, *, why: str) -> Decision:
        """Decide without a scheduler; raises QuotaExceeded and PermissionDenied as far as this edge knows, and
        Overloaded for a draft alone while no more may wait."""
        if query.requested_plan == "draft" and not self._has_room(query):
            said = f"{self.drafts.queued} drafts wait here, and {why}; no more may wait"
            raise Overloaded(said, param="drafts", retry_after_s=max(1.0, self.drafts.remaining_s / 2))
        decision = self.alone(query, why=why)
        chosen = decision.chosen()
        gpu_s = chosen.gpu_s if chosen is not None else 0.0
        try:
            self._quotas.check(query, gpu_s, final=decision.makes_final, now_ns=self._clock.now_ns())
        except AdaptiveGenError as exc:
            get_logger().info("refused_alone", job_id=query.job_id, tenant=query.tenant, code=exc.code, param=exc.param)
            raise
        return decision

    def _has_room(self, query: PlacementQuery) -> bool:
        """Whether a further draft of its tenant may wait here."""
        return self.drafts.has_room(query.tenant, self._max_waiting_drafts)

    def alone(self, query: PlacementQuery, *, why: str) -> Decision:
        """Decide without a scheduler, on what was accepted before."""
        decision = decide_alone(
            query,
            draft_card=self.drafts.card(query.draft_model),
            cloud_card=self.versions.card(query.cloud_model),
            can_draft=self.drafts.can(query.draft_model) and self._has_room(query),
            pool=self._identity.pool,
            why=why,
            now_ns=self._clock.now_ns(),
        )
        reckoned = {"gpu_s": self._quotas.gpu_s(query, decision)}
        candidates = tuple(
            candidate.model_copy(update=reckoned) if candidate.plan == decision.plan else candidate
            for candidate in decision.candidates
        )
        return decision.model_copy(update={"candidates": candidates})

    def accepted(self, tenant: str, job_id: str, decision: Decision, *, here: bool) -> None:
        """A job is accepted by a decision, or its final asked for; here: it is in the spool."""
        if decision.decided_by == self._identity.node_id:
            chosen = decision.chosen()
            gpu_s = chosen.gpu_s if chosen is not None else 0.0
            self._quotas.accepted(tenant, job_id, gpu_s, here=here, now_ns=self._clock.now_ns())

    def handed(self, job_id: str) -> None:
        """The centre has a job that was in the spool."""
        self._quotas.handed(job_id, now_ns=self._clock.now_ns())

    def gone(self, job_id: str) -> None:
        """A job that was in the spool is deleted."""
        self.handed(job_id)
        self.ended(job_id)

    def ended(self, job_id: str) -> None:
        """A job is over."""
        self._quotas.ended(job_id)

    def known(self, query: PlacementQuery, *, why: str) -> Decision:
        """Decide, without a scheduler, on what was rendered before."""
        return known_alone(query, pool=self._identity.pool, why=why, now_ns=self._clock.now_ns())

    async def again(self, spec: JobSpec, drafted: bool) -> Decision | Later | None:
        """A scheduler's decision on the final of a job that this edge decided on while it was cut off, or when it is
        to be asked again; None where there is neither: the job was accepted."""
        age_s = (self._clock.now_ns() - spec.created_at_ns) / 1e9
        changes: dict[str, object] = {
            "requested_plan": spec.decision.plan,
            "draft_known": drafted,
            "keeps_id": True,
            "deadline_s": deadline_left_s(spec.request.deadline_s, age_s=age_s),
        }
        try:  # also where its model is not installed here any more
            query = self.query(spec.tenant, spec.id, spec.request, self.still(spec), content_known=False)
            query = query.model_copy(update=changes)
            decision = on_query(await self._placer.place(query), query)
            if (refusal := refusal_of(decision)) is not None:
                raise refusal
        except AdaptiveGenError as exc:
            if isinstance(exc, ResourceExhausted) and exc.retry_after_s is not None:
                return Later(exc.retry_after_s, of_tenant=isinstance(exc, QuotaExceeded), code=exc.code)
            get_logger().info("own_decision_stands", job_id=spec.id, code=exc.code, error=exc.message)
            return None
        return decision

    def spec(self, tenant: str, request: GenerationRequest, models: Models, key: str, decision: Decision) -> JobSpec:
        """The spec of a new job; `key` is its content key."""
        return JobSpec(
            id=decision.job_id,
            tenant=tenant,
            created_at_ns=self._clock.now_ns(),
            request=request,
            content_key=key,
            draft_model=models.draft.name,
            cloud_model=models.cloud.name,
            draft_steps=models.draft.limits.steps_default,
            decision=decision,
            edge_grpc_address=self._identity.grpc_address,
            draft_token=new_token(prefix="dt", rng=self._rng, bits=160),
            want_final=decision.plan != "draft",
            trace=carry(),
            notes=models.notes if decision.makes_draft else (),
        )
