"""What was decided lately, and how the last jobs went against what was predicted of them. Pure.

Everything is a ring: the last decisions, the jobs whose outcome is waited for, the last outcomes. Placing only notes;
qualities and QoE are worked out when an outcome comes, percentiles when somebody looks.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from adaptivegen.models.card import ModelCard, ScoredPlan
from adaptivegen.placement import FINAL_PLANS, Decision, Outcome, PlacementQuery
from scheduler.decide.drafters import quality_of_draft
from scheduler.decide.qoe import QoeSettings, qoe, quality_of

MAX_DECISIONS = 500
MAX_EXPECTED = 8192  # placed jobs whose outcome is waited for
MAX_OUTCOMES = 1000
MEDIAN, MOST = 0.5, 0.95  # the percentiles that are told


@dataclass(frozen=True, slots=True)
class Decided:
    """One of the last decisions, and whose request it was about."""

    tenant: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class Compared:
    """One part of the last jobs: percentiles of what was predicted and of what was seen, of the same `outcomes` jobs.

    part: `first look`, `draft` and `final` are in seconds, `qoe` from 1 to 5.
    """

    part: str
    outcomes: int
    predicted_p50: float
    predicted_p95: float
    observed_p50: float
    observed_p95: float


class _Expected(NamedTuple):
    """What was predicted of a placed job, and what its QoE is worked out from; settings: those it was placed by."""

    decided_at_ns: int
    edge_id: str
    plan: str
    intent: str
    draft_model: str
    cloud_model: str
    width: int
    height: int
    steps: int
    refined: bool
    look_s: float | None
    draft_s: float | None
    final_s: float | None
    qoe: float
    settings: QoeSettings


@dataclass(frozen=True, slots=True)
class _Seen:
    """Predicted and observed, by part; None where the two cannot be compared."""

    look_s: tuple[float, float] | None
    draft_s: tuple[float, float] | None
    final_s: tuple[float, float] | None
    qoe: tuple[float, float] | None


class Recent:
    """The last decisions and outcomes of one scheduler."""

    def __init__(self) -> None:
        self.decisions: deque[Decided] = deque(maxlen=MAX_DECISIONS)
        self._expected: OrderedDict[str, _Expected] = OrderedDict()
        self._seen: deque[_Seen] = deque(maxlen=MAX_OUTCOMES)

    def __repr__(self) -> str:
        return f"Recent({len(self.decisions)} decisions, {len(self._expected)} expected, {len(self._seen)} seen)"

    def placed(self, query: PlacementQuery, decision: Decision, settings: QoeSettings) -> None:
        """A decision was made, by these settings. A draft that was there before is not predicted."""
        self.decisions.append(Decided(query.tenant, decision))
        self._expected.pop(decision.job_id, None)
        chosen = decision.chosen()
        if chosen is None or query.draft_known or not (decision.makes_draft or decision.makes_final):
            return
        self._expected[decision.job_id] = _Expected(
            decided_at_ns=decision.decided_at_ns,
            edge_id=decision.edge_id,
            plan=decision.plan,
            intent=query.intent,
            draft_model=query.draft_model,
            cloud_model=query.cloud_model,
            width=query.width,
            height=query.height,
            steps=decision.final_steps,
            refined=decision.refine_t0 is not None,
            look_s=chosen.first_look_s,
            draft_s=chosen.draft_s,
            final_s=chosen.final_s,
            qoe=chosen.qoe,
            settings=settings,
        )
        while len(self._expected) > MAX_EXPECTED:
            self._expected.popitem(last=False)

    def ended(self, outcome: Outcome, cards: Mapping[str, ModelCard], *, decider: str) -> None:
        """How a job went. What was placed by others, or was cancelled, tells nothing of predictions."""
        told = self._expected.get(outcome.job_id)
        if told is None or not outcome.is_of(decider, told.decided_at_ns, told.edge_id):
            return
        del self._expected[outcome.job_id]
        if outcome.status not in ("completed", "failed"):
            return
        draft_s, final_s = _seconds(outcome.draft_s), _seconds(outcome.final_s)
        seen = _Seen(
            look_s=_pair(told.look_s, _seconds(outcome.first_look_s)),
            draft_s=_pair(told.draft_s, draft_s),
            final_s=_pair(told.final_s, final_s) if _as_decided(told, outcome.plan) else None,
            qoe=_pair(told.qoe, _observed_qoe(told, outcome, cards, draft_s=draft_s, final_s=final_s)),
        )
        if seen != _Seen(None, None, None, None):
            self._seen.append(seen)

    def compared(self) -> tuple[Compared, ...]:
        """First look, draft, final and QoE of the last outcomes; a part of which nothing was seen is left out."""
        parts = {
            "first look": [seen.look_s for seen in self._seen if seen.look_s is not None],
            "draft": [seen.draft_s for seen in self._seen if seen.draft_s is not None],
            "final": [seen.final_s for seen in self._seen if seen.final_s is not None],
            "qoe": [seen.qoe for seen in self._seen if seen.qoe is not None],
        }
        return tuple(_compared(part, pairs) for part, pairs in parts.items() if pairs)


def _seconds(seen: float | None) -> float | None:
    """A time that can be one."""
    return seen if seen is not None and math.isfinite(seen) and seen >= 0.0 else None


def _pair(predicted: float | None, observed: float | None) -> tuple[float, float] | None:
    return None if predicted is None or observed is None else (predicted, observed)


def _observed_qoe(
    told: _Expected,
    outcome: Outcome,
    cards: Mapping[str, ModelCard],
    *,
    draft_s: float | None,
    final_s: float | None,
) -> float | None:
    """By the function and the settings the prediction was made with; None where it was not seen when a part came.

    What a failed job did not show never came.
    """
    wanted = (told.draft_s is not None, told.final_s is not None)
    if outcome.status == "completed" and wanted != (draft_s is not None, final_s is not None):
        return None
    return qoe(
        told.settings,
        intent=told.intent,
        draft_quality=quality_of_draft(
            cards.get(told.draft_model),
            width=told.width,
            height=told.height,
            assumed=told.settings.unmeasured_draft,
        ),
        draft_s=draft_s,
        final_quality=_final_quality(told, outcome, cards),
        final_s=final_s,
    )


def _as_decided(told: _Expected, plan: str) -> bool:
    """Whether a final was made as decided, perhaps with other steps: these are settled when its turn comes."""
    return plan == told.plan or {plan, told.plan} == {"reduced", "refine" if told.refined else "cloud"}


def _final_quality(told: _Expected, outcome: Outcome, cards: Mapping[str, ModelCard]) -> float:
    """Of the final as it was made: with its steps where they are told, else as decided or as its plan is by default."""
    card, assumed, plan = cards.get(told.cloud_model), told.settings.unmeasured_final, outcome.plan
    if card is None or plan not in FINAL_PLANS:
        return assumed
    decided = told.steps if plan == told.plan else 0
    return quality_of(
        card,
        _way(plan, refined=told.refined if _as_decided(told, plan) else plan == "refine"),
        steps=outcome.final_steps or decided or card.limits.steps_default,
        width=told.width,
        height=told.height,
        assumed=assumed,
    )


def _compared(part: str, pairs: list[tuple[float, float]]) -> Compared:
    predicted, observed = sorted(first for first, _ in pairs), sorted(second for _, second in pairs)
    return Compared(
        part=part,
        outcomes=len(pairs),
        predicted_p50=_percentile(predicted, MEDIAN),
        predicted_p95=_percentile(predicted, MOST),
        observed_p50=_percentile(observed, MEDIAN),
        observed_p95=_percentile(observed, MOST),
    )


def _percentile(ordered: list[float], share: float) -> float:
    """The least value that at least this share of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _way(plan: str, *, refined: bool) -> ScoredPlan:
    if plan == "split":
        return "split"
    return "refine" if refined else "cloud"
