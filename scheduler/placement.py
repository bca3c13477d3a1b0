"""The placement service's behaviour: check what came over the wire, decide, note the dispatch, say so in the log."""

from __future__ import annotations

import random

from adaptivegen.errors import InvalidRequest
from adaptivegen.ids import check_name
from adaptivegen.placement import Attempt, Decision, Outcome, PlacementQuery
from adaptivegen.telemetry import get_logger
from scheduler.decide.decide import decide, record
from scheduler.decide.view import View
from scheduler.decision_log import DecisionLog
from scheduler.steady import SteadyTime

MAX_JOB_ID_CHARACTERS = 64
MAX_NAME_CHARACTERS = 64


class Placement:
    """Answers `Place` and `ReportOutcome` from one view."""

    def __init__(self, view: View, *, time: SteadyTime, rng: random.Random, log: DecisionLog | None = None) -> None:
        self._view = view
        self._log = log
        self._time = time
        self._rng = rng

    async def place(self, query: PlacementQuery) -> Decision:
        """Decide; raises InvalidRequest or ModelNotFound."""
        check_name(query.tenant, field="tenant")
        check_name(query.edge_id, field="edge_id")
        _check_job_id(query.job_id)
        check_name(query.draft_model, field="draft_model")
        if query.session:
            check_name(query.session, field="session")
        now_ns = self._time.now_ns()
        decision = decide(self._view, query, now_ns=now_ns, rng=self._rng)
        record(self._view, query, decision, now_ns=now_ns)
        if self._log is not None:
            self._log.decided(query, decision)
        chosen = decision.chosen()
        get_logger().info(
            "placed",
            job_id=query.job_id,
            plan=decision.plan,
            edge=query.edge_id,
            pool=decision.pool,
            final_s=chosen.final_s if chosen else None,
        )
        return decision

    async def observe(self, outcome: Outcome) -> None:
        """A job is over: its work no longer waits, and predictions learn from it. Raises InvalidRequest."""
        _check_job_id(outcome.job_id)
        for name in ("edge_id", "worker_id", "plan", "status", "decided_by", "drafted_by"):
            if len(getattr(outcome, name)) > MAX_NAME_CHARACTERS:
                raise InvalidRequest.field(name, getattr(outcome, name), f"at most {MAX_NAME_CHARACTERS} characters")
        off = self._view.ended(outcome)
        if self._log is not None and outcome.decided_by == self._view.decider:
            self._log.ended(outcome)
        get_logger().info("outcome", **outcome.model_dump(), off={part: round(value, 3) for part, value in off.items()})

    async def attempted(self, attempt: Attempt) -> None:
        """How it went when one node asked another. Raises InvalidRequest."""
        check_name(attempt.node_id, field="node_id")
        check_name(attempt.reporter, field="reporter")
        self._view.attempted(attempt, now_ns=self._time.now_ns())
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
