"""The language of placement, shared by edges (who ask), schedulers (who decide) and operators (who want to know why).

Pure data: plans, candidates with their predicted times and scores, and the decision that is stored in the job's spec.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, get_args

from pydantic import BaseModel, ConfigDict

from adaptivegen.errors import AdaptiveGenError, InternalError, Overloaded, PermissionDenied, QuotaExceeded

Plan = Literal["hit", "near-hit", "draft", "refine", "split", "cloud", "reduced", "refuse"]
Tier = Literal["priority", "default", "flex"]  # of service, the first to be served first
TIERS: tuple[Tier, ...] = get_args(Tier)
REFUSALS: dict[str, type[AdaptiveGenError]] = {cls.code: cls for cls in (QuotaExceeded, Overloaded, PermissionDenied)}


FINAL_PLANS: tuple[Plan, ...] = ("refine", "split", "cloud", "reduced")


class Candidate(BaseModel):
    """One plan as it was weighed. Times are predicted seconds from submission; None where the plan has no such part.

    `*_upper_s`: what 95 % of such jobs should not exceed. Of the final's time, transfer_s: for moving the draft and the
    final from node to node, and load_s: until a model is loaded that no worker has yet. moved_bytes: that the plan is
    predicted to move between nodes (see `scheduler.decide.moves`).
    """

    model_config = ConfigDict(frozen=True)

    plan: Plan
    feasible: bool
    reason: str
    first_look_s: float | None = None
    draft_s: float | None = None
    final_s: float | None = None
    first_look_upper_s: float | None = None
    draft_upper_s: float | None = None
    final_upper_s: float | None = None
    qoe: float = 1.0
    gpu_s: float = 0.0
    score: float = 0.0
    moved_bytes: float = 0.0
    transfer_s: float = 0.0
    load_s: float = 0.0

    @property
    def makes_final(self) -> bool:
        """Whether a worker would be given work; under `near-hit` only where the final is wanted."""
        return self.plan in FINAL_PLANS or self.gpu_s > 0


class DraftPlace(BaseModel):
    """An edge that was looked at to make the draft. `address`: host:port of its gRPC door.

    draft_s: predicted seconds from submission until the draft is at the edge that asked; load_s: seconds of work ahead
    of it there; weight: below 1 while it has just come into rotation; chance: with which it was to be drawn.
    """

    model_config = ConfigDict(frozen=True)

    edge_id: str
    address: str
    draft_s: float
    load_s: float
    weight: float = 1.0
    chance: float = 0.0


class Decision(BaseModel):
    """What was chosen for one job and why; stored with the job.

    Plan `refuse` takes no job: `refused` is the code of the error that the client gets (`REFUSALS`), refused_param what
    it is about, retry_after_s when it may ask again, None where waiting does not help.

    edge_id: the edge that accepted the job; draft_edge_id: the one that drafts, empty where it is the same or there is
    no draft; backup_edge_id: one that drafts too where there is no draft after `backup_after_s`, and where one that has
    begun nowhere after `tied_after_s` (0: never) waits, too; draft_gain: QoE by which the best place would have been
    better; draft_yields_s: see `drafting`; settles: how many steps its final has is settled when its turn comes.
    propensity: given the plan, the chance with which its very places were drawn from those that were looked at; 1 where
    nothing was left to chance.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    plan: Plan
    edge_id: str
    pool: str
    final_steps: int
    refine_t0: float | None
    decided_by: str
    decided_at_ns: int
    reasons: tuple[str, ...]
    candidates: tuple[Candidate, ...] = ()
    view_digest: str = ""
    propensity: float = 1.0
    draft_edge_id: str = ""
    backup_edge_id: str = ""
    backup_after_s: float = 0.0
    tied_after_s: float = 0.0
    draft_gain: float = 0.0
    draft_yields_s: float = 0.0
    settles: bool = False
    draft_places: tuple[DraftPlace, ...] = ()
    refused: str = ""
    refused_param: str = ""
    retry_after_s: float | None = None

    @property
    def makes_draft(self) -> bool:
        """Whether an edge drafts; a reduced plan does where its final starts from the draft."""
        return self.plan in ("draft", "refine") or (self.plan == "reduced" and self.refine_t0 is not None)

    @property
    def makes_final(self) -> bool:
        """Whether a worker is given work."""
        return self.plan in FINAL_PLANS or (self.plan == "near-hit" and self.final_steps > 0)

    @property
    def drafter(self) -> str:
        """The edge that drafts, where there is a draft."""
        return self.draft_edge_id or self.edge_id

    @property
    def drafted_elsewhere(self) -> bool:
        """Whether another edge than the one that accepted the job drafts."""
        return self.drafter != self.edge_id

    def place(self, edge_id: str) -> DraftPlace | None:
        """The edge of this name among those that were looked at."""
        return next((place for place in self.draft_places if place.edge_id == edge_id), None)

    def chosen(self) -> Candidate | None:
        """The candidate of the chosen plan, if it was weighed."""
        return next((candidate for candidate in self.candidates if candidate.plan == self.plan), None)


def plan_of(decision: Decision, final_steps: int) -> Plan:
    """The plan of a decision with so many steps in place of those that were decided."""
    if decision.plan == "reduced" and final_steps > decision.final_steps:
        return "cloud" if decision.refine_t0 is None else "refine"
    return "reduced" if decision.makes_final and final_steps < decision.final_steps else decision.plan


class PlacementQuery(BaseModel):
    """What an edge tells the scheduler about one request. `final_steps` 0 means the plan's default.

    draft_known: its draft is made already, and only the final is asked for; session: requests of one name are drafted
    at one edge as far as that is good, empty: this one belongs to none; draft_digest: of the asking edge's draft model,
    empty: no other edge is to draft for it; deadline_s: within which the final is needed, None: no deadline;
    allow_reduced: a final of fewer steps is better than a late one, one without a draft or none, and with a deadline
    than others waiting for long; keeps_id: asked again, the request has the same job_id, so that a place can be kept
    for it; line: the model that was asked for, of which cloud_model is a version; draft_line: the same of draft_model.

    Of the stored video whose prompt is nearest, where the edge looks for such: near_similarity: of the prompts, up to
    1, 0 where there is none; near_model: that made it; near_bytes: of its file that have to be moved to the edge.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    tenant: str
    edge_id: str
    intent: Literal["iterate", "render"]
    draft_model: str
    cloud_model: str
    width: int
    height: int
    frames: int
    final_steps: int = 0
    content_known: bool = False
    has_reference: bool = False
    draft_known: bool = False
    requested_plan: str | None = None
    session: str = ""
    draft_digest: str = ""
    tier: Tier = "default"
    deadline_s: float | None = None
    allow_reduced: bool = False
    keeps_id: bool = False
    line: str = ""
    draft_line: str = ""
    near_similarity: float = 0.0
    near_model: str = ""
    near_bytes: float = 0.0


def on_query(decision: Decision, query: PlacementQuery) -> Decision:
    """The decision, if it can be one on this query; raises InternalError."""
    if decision.job_id != query.job_id:
        raise InternalError(f"asked of {query.job_id}, the scheduler decided on {decision.job_id[:80]!r}")
    if decision.plan == "hit" and not query.content_known:
        raise InternalError("the scheduler decided on a hit of what is not known")
    if decision.plan == "near-hit" and query.near_similarity <= 0:
        raise InternalError("the scheduler decided on a similar video where none is known")
    if decision.plan == "refuse" and decision.refused not in REFUSALS:
        raise InternalError(f"the scheduler refuses with {decision.refused[:80]!r}, which is no reason")
    return decision


def refusal_of(decision: Decision) -> AdaptiveGenError | None:
    """The error with which a decision refuses the request, None where it does not; it names the request, by which an
    operator can have the decision explained."""
    if decision.plan != "refuse":
        return None
    message, param = f"{' '.join(decision.reasons)} Request {decision.job_id}.", decision.refused_param or None
    return REFUSALS[decision.refused](message, param=param, retry_after_s=decision.retry_after_s)


class Outcome(BaseModel):
    """What really happened to a placed job, in seconds from its acceptance; None where that was not seen.

    decided_by, decided_at_ns: the decision that was carried out, as it says itself; drafted_by: the edge whose draft
    was taken; draft_late: the one that was to make it was slower than that; gpu_s: seconds of a worker that the final
    took.

    line: the model that was asked for; cloud_model: its version that was to make the final; made_with: the one that
    did; failed_with: the one with which the first attempt that failed was made; pixels: of all frames of the final,
    final_bytes: of its file, and final_steps: that it has, 0 where there is none; session: the request's.

    Of the draft: draft_line and draft_model as these; drafted_with: the version that made it, empty where there is none
    or it was there before; draft_failed_with: the one with which the first attempt that failed was made; draft_node_s:
    seconds of an edge's model that it took; draft_pixels: of all its frames; draft_bytes: of its file.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str
    edge_id: str
    worker_id: str
    plan: str
    status: str
    decided_by: str = ""
    decided_at_ns: int = 0
    first_look_s: float | None = None
    draft_s: float | None = None
    final_s: float | None = None
    drafted_by: str = ""
    draft_late: bool = False
    tenant: str = ""
    gpu_s: float = 0.0
    line: str = ""
    cloud_model: str = ""
    made_with: str = ""
    failed_with: str = ""
    pixels: float = 0.0
    session: str = ""
    final_bytes: float = 0.0
    draft_line: str = ""
    draft_model: str = ""
    drafted_with: str = ""
    draft_failed_with: str = ""
    draft_node_s: float = 0.0
    draft_pixels: float = 0.0
    draft_bytes: float = 0.0
    final_steps: int = 0

    def is_of(self, decided_by: str, decided_at_ns: int, edge_id: str) -> bool:
        """Whether it is the outcome of the decision that was made so, carried out by the edge it was made for."""
        made = decided_by, decided_at_ns, edge_id
        return (self.decided_by, self.decided_at_ns, self.edge_id) == made


class Attempt(BaseModel):
    """How it went when an edge asked another for a draft; `code`: of the error, empty where it went well."""

    model_config = ConfigDict(frozen=True)

    node_id: str
    reporter: str
    ok: bool
    code: str = ""


MAX_FREE_IN_S = 60.0  # ahead of which no worker asks


class Ticket(BaseModel):
    """A job that a worker could begin, since its message has come to it. model: the job's; models: all that the worker
    takes jobs of; free_in_s: seconds until its model should be free."""

    model_config = ConfigDict(frozen=True)

    worker_id: str
    pool: str
    model: str
    tenant: str
    job_id: str
    models: tuple[str, ...] = ()
    free_in_s: float = 0.0


class ToldSteps(NamedTuple):
    """Steps that a final is to have, told with its turn, 0: as decided; others_wait: fewer for the sake of others."""

    steps: int = 0
    others_wait: bool = False


AS_DECIDED = ToldSteps()


class Turn(BaseModel):
    """The job that the worker is to begin instead; or, with `rest_s`, none for so long."""

    model_config = ConfigDict(frozen=True)

    tenant: str
    job_id: str
    rest_s: float = 0.0
    told: ToldSteps = AS_DECIDED


class Placer(Protocol):
    """Whoever can decide: a scheduler over gRPC, or the edge alone."""

    async def place(self, query: PlacementQuery) -> Decision:
        """Decide; raises Unavailable or DeadlineExceeded when nobody answered."""
        ...
