"""The placement service's behaviour: check what came over the wire, decide, note the dispatch, say so in the log."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable

from adaptivegen.errors import InvalidRequest
from adaptivegen.ids import check_name, check_video_id
from adaptivegen.placement import MAX_FREE_IN_S, Attempt, Decision, Outcome, PlacementQuery, Ticket, Turn
from adaptivegen.telemetry import get_logger
from scheduler.decide.jobs import OpenJob
from scheduler.decide.placing import Ours, Placing
from scheduler.decide.recent import Recent
from scheduler.decide.view import View
from scheduler.decision_log import DecisionLog
from scheduler.steady import SteadyTime

MAX_JOB_ID_CHARACTERS = 64
MAX_NAME_CHARACTERS = 64
MOST_PIXELS = 1e15  # of all frames, and bytes of their file
MOST_STEPS = 1000
_OUTCOME_NAMES = (
    "edge_id",
    "worker_id",
    "plan",
    "status",
    "decided_by",
    "drafted_by",
    "line",
    "cloud_model",
    "made_with",
    "failed_with",
    "session",
    "draft_line",
    "draft_model",
    "drafted_with",
    "draft_failed_with",
)
MAX_MODELS = 16  # of one worker
EJECTED_REST_S = 2.0  # of a worker that fails, before its next question


class Placement:
    """Answers the placement service from one view. placed: told of every job that is placed here; heard: of every
    outcome; unknown: of every model without a card; placing: who decides, by default ours."""

    def __init__(
        self,
        view: View,
        *,
        time: SteadyTime,
        rng: random.Random,
        log: DecisionLog | None = None,
        placed: Callable[[OpenJob], None] = lambda job: None,
        heard: Callable[[Outcome], None] = lambda outcome: None,
        unknown: Callable[[str], None] = lambda model: None,
        placing: Placing | None = None,
    ) -> None:
        self._view = view
        self._log = log
        self._time = time
        self._rng = rng
        self._placed = placed
        self._heard = heard
        self._unknown = unknown
        self._placing = placing or Ours(view)
        self._logger = get_logger()  # one for all calls: it is bound once
        self.plans: Counter[tuple[str, str]] = Counter()  # plans, and what refusals were about
        self.recent = Recent()

    async def place(self, query: PlacementQuery) -> Decision:
        """Decide; raises InvalidRequest or ModelNotFound."""
        check_name(query.tenant, field="tenant")
        check_name(query.edge_id, field="edge_id")
        _check_job_id(query.job_id)
        check_name(query.draft_model, field="draft_model")
        for name in ("line", "draft_line"):
            if getattr(query, name):
                check_name(getattr(query, name), field=name)
        for model in (query.cloud_model, query.draft_model):
            if model not in self._view.cards:
                self._unknown(model)
        if query.session:
            check_name(query.session, field="session")
        now_ns = self._time.now_ns()
        decision = self._placing.decide(query, now_ns=now_ns, rng=self._rng)
        job = self._placing.record(query, decision, now_ns=now_ns)
        self.plans[decision.plan, decision.refused_param] += 1
        self.recent.placed(query, decision, self._view.policy.qoe)
        if job is not None:
            self._placed(job)
        if self._log is not None:
            self._log.decided(query, decision)
        chosen = decision.chosen()
        self._logger.info(
            "placed",
            job_id=query.job_id,
            tenant=query.tenant,
            plan=decision.plan,
            edge=query.edge_id,
            pool=decision.pool,
            final_s=chosen.final_s if chosen else None,
            refused=decision.refused or None,
        )
        return decision

    async def next_job(self, ticket: Ticket) -> Turn:
        """Whose turn it is, now that a worker could begin a job; a worker that only fails is to rest.

        Raises InvalidRequest.
        """
        for name in ("worker_id", "pool", "model", "tenant"):
            check_name(getattr(ticket, name), field=name)
        if len(ticket.models) > MAX_MODELS:
            raise InvalidRequest.field("models", f"{len(ticket.models)} names", f"at most {MAX_MODELS}")
        for model in ticket.models:
            check_name(model, field="models")
        check_video_id(ticket.job_id, field="job_id")
        if not 0.0 <= ticket.free_in_s <= MAX_FREE_IN_S:
            raise InvalidRequest.field("free_in_s", ticket.free_in_s, f"0 to {MAX_FREE_IN_S:g}")
        now_ns, same = self._time.now_ns(), Turn(tenant=ticket.tenant, job_id=ticket.job_id)
        node = self._view.nodes.get(ticket.worker_id)
        report = node.report if node is not None else None
        if node is None or report is None or report.kind != "worker" or report.pool != ticket.pool:
            return same  # one that was not heard of yet, or is none
        others = self._view.workers(ticket.model, now_ns=now_ns, line=report.line).get(ticket.pool, [])
        if self._view.state(node, now_ns) == "ejected" and any(other is not node for other in others):
            return same.model_copy(update={"rest_s": EJECTED_REST_S})
        job = self._view.jobs.next(ticket, now_ns=now_ns, slots=sum(other.slots for other in others))
        if job is None:
            return same
        if job.job_id != ticket.job_id:
            get_logger().info("turn", job_id=job.job_id, before=ticket.job_id, worker=ticket.worker_id)
        return Turn(tenant=job.tenant, job_id=job.job_id, told=job.told_steps)

    async def observe(self, outcome: Outcome) -> None:
        """A job is over: its work no longer waits, and predictions learn from it. Raises InvalidRequest."""
        _check_job_id(outcome.job_id)
        if outcome.tenant:
            check_name(outcome.tenant, field="tenant")
        for name in _OUTCOME_NAMES:
            if len(getattr(outcome, name)) > MAX_NAME_CHARACTERS:
                raise InvalidRequest.field(name, getattr(outcome, name), f"at most {MAX_NAME_CHARACTERS} characters")
        for name in ("gpu_s", "draft_node_s"):
            if not 0.0 <= getattr(outcome, name) < math.inf:  # nor if it is no number
                raise InvalidRequest.field(name, getattr(outcome, name), "0 or more")
        for name in ("pixels", "draft_pixels"):
            if not (getattr(outcome, name) == 0.0 or 1.0 <= getattr(outcome, name) <= MOST_PIXELS):
                raise InvalidRequest.field(name, getattr(outcome, name), f"0, or 1 to {MOST_PIXELS:g}")
        if not 0 <= outcome.final_steps <= MOST_STEPS:
            raise InvalidRequest.field("final_steps", outcome.final_steps, f"0 to {MOST_STEPS}")
        for name in ("final_bytes", "draft_bytes"):
            if not 0.0 <= getattr(outcome, name) <= MOST_PIXELS:
                raise InvalidRequest.field(name, getattr(outcome, name), f"0 to {MOST_PIXELS:g}")
        self.recent.ended(outcome, self._view.cards, decider=self._view.decider)
        off = self._placing.ended(outcome, now_ns=self._time.now_ns())
        self._heard(outcome)
        if self._log is not None and outcome.decided_by == self._view.decider:
            self._log.ended(outcome)
        get_logger().info("outcome", **outcome.model_dump(), off={part: round(value, 3) for part, value in off.items()})

    async def attempted(self, attempt: Attempt) -> None:
        """How it went when one node asked another. Raises InvalidRequest."""
        check_name(attempt.node_id, field="node_id")
        check_name(attempt.reporter, field="reporter")
        self._placing.attempted(attempt, now_ns=self._time.now_ns())
        if not attempt.ok:
            get_logger().warning(
                "attempt_failed",
                node=attempt.node_id,
                reporter=attempt.reporter,
                code=attempt.code[:MAX_NAME_CHARACTERS],
            )


def _check_job_id(job_id: str) -> None:
    if not 1 <= len(job_id) <= MAX_JOB_ID_CHARACTERS:
        raise InvalidRequest.field("job_id", job_id, f"1 to {MAX_JOB_ID_CHARACTERS} characters")
