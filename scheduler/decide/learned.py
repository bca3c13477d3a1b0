"""What a scheduler has learned from nodes and edges, kept beside the node table and updated in place. Pure.

Heartbeats tell of work that a node has finished: they move its factor. Outcomes tell how long a whole job took as its
edge saw it: they widen or narrow what predictions are told with, by plan and part.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

from adaptivegen.models.card import ModelCard
from adaptivegen.nodes import FinishedWork, NodeReport
from adaptivegen.placement import Decision, Outcome, Plan, plan_of
from scheduler.decide.jobs import StepChoice
from scheduler.decide.learn import LEAST_S, LearnSettings, Speeds, clamped
from scheduler.decide.sizes import Sizes
from scheduler.decide.spreads import Part, Spreads
from scheduler.decide.work import work_of

Standing = Literal["dated", "awaited", "unawaited"]  # of a final in a line: with a deadline, or somebody waits for it
_AS_IT_STANDS: Mapping[Standing, str] = {"dated": " by a deadline", "awaited": "", "unawaited": " when iterating"}
MAX_EXPECTED = 8192  # placed jobs whose outcome is waited for
MAX_READ_PARTS = 1024  # whose names are kept
MAX_HEARD = 8192  # nodes of which it is known how much of their work was heard of


class Expected(NamedTuple):
    """Seconds as predicted, the logarithm of the upper prediction over them, and the centre that is in them."""

    seconds: float
    upper: float
    centre: float


class Told(NamedTuple):
    """What was predicted of a job when it was placed, by the decision and the edge it was told to. draft_factor: by
    which the card's times of the draft were multiplied; settled: the plan's name if the final has the other number of
    steps that it may have, and by how many seconds its work is then longer, or shorter."""

    decided_at_ns: int
    edge_id: str
    drafter: str
    plan: str
    parts: dict[Part, Expected]
    draft_factor: float = 1.0
    settled: tuple[str, float] = ("", 0.0)


DRAFTS, LOOKS = "draft", "first look"  # the families of their parts
USUAL_POOL = "default"  # whose parts need not be told apart by its name


@lru_cache(maxsize=MAX_READ_PARTS)
def draft_part(node_class: str = "", *, at_peer: bool = False) -> Part:
    """What predictions of drafts are kept under: of the edge that asks or of one that drafts for it, and by its class
    of machines. While little is known of one, its upper end is taken to be like that of all drafts."""
    return Part(f"draft{' at a peer' if at_peer else ''}{f' in {node_class}' if node_class else ''}", DRAFTS)


@lru_cache(maxsize=MAX_READ_PARTS)
def look_part(draft: Part) -> Part:
    """What predictions of the first looks of such drafts are kept under."""
    return Part(f"{LOOKS}{draft.name.removeprefix(DRAFTS)}", LOOKS)


@lru_cache(maxsize=MAX_READ_PARTS)
def final_part(plan: Plan, standing: Standing, pool: str) -> Part:
    """What predictions of such finals are kept under: those that go before others wait less, and less uncertainly, and
    each pool has machines of its own kind. While little is known of one, it is taken to be like those that stand as it
    does."""
    stands = _AS_IT_STANDS[standing]
    return Part(f"final {plan}{stands}{'' if pool in ('', USUAL_POOL) else f' in {pool}'}", f"final{stands}")


class Learned:
    """Factors of nodes and spreads of predictions. `revision` grows with everything that is learned."""

    def __init__(self, settings: LearnSettings | None = None) -> None:
        self._settings = settings or LearnSettings()
        self.speeds = Speeds(self._settings)
        self.spreads = Spreads(self._settings)
        self.sizes = Sizes()
        self.revision = 0
        self._heard: OrderedDict[str, tuple[int, int]] = OrderedDict()  # life of a node and number of its last work
        self._told: OrderedDict[str, Told] = OrderedDict()

    def __repr__(self) -> str:
        return f"Learned({self.speeds!r}, {self.spreads!r}, revision={self.revision})"

    # ---- nodes ------------------------------------------------------------------------------------------------

    def hear(self, report: NodeReport, cards: Mapping[str, ModelCard], *, now_ns: int) -> None:
        """Take what a node says it has finished since it was last heard; what cannot be compared is passed over.

        Compared is what a card was measured with: its sizes and its guidance. An older life than the one known is a
        second process with the same id, or a clock set back: nothing is learned from it.
        """
        life, last = self._heard.get(report.node_id, (0, 0))
        if report.started_at_ns < life:
            return
        last = last if report.started_at_ns == life else 0
        for done in sorted(report.finished, key=lambda work: work.number):
            if done.number > last:
                last = done.number
                self._take(report, done, cards, now_ns=now_ns)
        self._heard[report.node_id] = (report.started_at_ns, last)
        self._heard.move_to_end(report.node_id)
        while len(self._heard) > MAX_HEARD:
            self._heard.popitem(last=False)

    def _take(self, report: NodeReport, done: FinishedWork, cards: Mapping[str, ModelCard], *, now_ns: int) -> None:
        card = cards.get(done.model)
        if card is None or done.model not in report.models or done.guidance != card.limits.guidance_default:
            return
        work = work_of(card, width=done.width, height=done.height, frames=done.frames, steps=done.steps)
        if work is None or work.note:
            return
        self.revision += 1
        self.speeds.observe(
            report.node_id,
            report.kind,
            done.model,
            observed_s=done.seconds,
            predicted_s=work.total_s,
            now_s=now_ns / 1e9,
        )

    def forget(self, node_id: str) -> None:
        """The node is gone for good."""
        self._heard.pop(node_id, None)
        self.speeds.forget(node_id)

    def edge_factor(self, edge_id: str, model: str, *, now_s: float | None = None, asker: str = "") -> float:
        """By how much the card's times are to be multiplied at this edge; now_s: with what it was warned of of late, by
        itself or by the edge that asks."""
        factor = self.speeds.factor(edge_id, "edge", model)
        return factor if now_s is None else max(factor, self.speeds.warned(edge_id, model, now_s=now_s, asker=asker))

    def pool_factor(self, worker_ids: Iterable[str], model: str) -> float:
        """The same of a pool whose workers take jobs as they are free: a fast one takes more of them."""
        factors = self.speeds.factors(worker_ids, "worker", model)
        if not factors:
            return self.speeds.factor("", "worker", model)
        return len(factors) / sum(1.0 / factor for factor in factors)

    def sized(self, card: ModelCard, *, size_bytes: float, pixels: float) -> None:
        """A clip's file was so large."""
        self.revision += self.sizes.observe(card, size_bytes=size_bytes, pixels=pixels)

    # ---- predictions --------------------------------------------------------------------------------------------

    def told_s(
        self, part: Part, predicted_s: float | None, *, later_s: float = 0.0
    ) -> tuple[float, float] | tuple[None, None]:
        """A prediction of a part, moved to the middle of what is observed of such, and its upper end; None stays None.
        later_s: by which that end may well be later than outcomes say."""
        if predicted_s is None:
            return None, None
        centred_s = predicted_s * math.exp(self.spreads.centre(part))
        return centred_s, centred_s * math.exp(self.spreads.upper(part)) + later_s

    def expect(
        self,
        decision: Decision,
        *,
        draft_known: bool,
        draft_class: str = "",
        draft_factor: float = 1.0,
        standing: Standing = "awaited",
        steps: StepChoice | None = None,
    ) -> None:
        """Remember what was predicted of a job that is placed now; a draft that was there before is not predicted, and
        a final that waits for a model to be loaded would tell of that load, not of finals. draft_class: of the edge
        that drafts."""
        chosen = decision.chosen()
        part = draft_part(draft_class, at_peer=decision.drafted_elsewhere)
        final = final_part(decision.plan, standing, decision.pool)
        drafts = {} if chosen is None else {part: chosen.draft_s, look_part(part): chosen.first_look_s}
        times = {} if chosen is None else {final: chosen.final_s}
        if decision.makes_draft and not draft_known:
            times |= drafts
        if chosen is not None and chosen.load_s:
            times.pop(final)
        parts = {
            part: Expected(s, self.spreads.upper(part), self.spreads.centre(part))
            for part, s in times.items()
            if s is not None and s >= LEAST_S
        }
        self._told.pop(decision.job_id, None)
        if parts:
            by, at_ns = decision.edge_id, decision.decided_at_ns
            self._told[decision.job_id] = Told(
                at_ns, by, decision.drafter, decision.plan, parts, draft_factor, _other(decision, steps)
            )
        while len(self._told) > MAX_EXPECTED:
            self._told.popitem(last=False)

    def outcome(self, outcome: Outcome, *, decider: str, now_s: float = 0.0) -> dict[str, float]:
        """Learn from how a job went that this scheduler placed; returns ln(observed / predicted) by part.

        A draft counts whatever became of its final, a final where it was made as it was decided. An edge whose draft
        was overtaken by a second copy has finished nothing, so its heartbeats do not tell how slow it was.
        """
        told = self._told.get(outcome.job_id)
        if told is None or not outcome.is_of(decider, told.decided_at_ns, told.edge_id):
            return {}
        del self._told[outcome.job_id]
        observed = {part: _draft_s(outcome, told) for part in told.parts if part.family == DRAFTS}
        observed |= {part: _look_s(outcome, told) for part in told.parts if part.family == LOOKS}
        as_decided = "" in (outcome.made_with, outcome.cloud_model) or outcome.made_with == outcome.cloud_model
        if outcome.status == "completed" and as_decided:  # by another version it tells nothing of what was predicted
            observed |= {part: _final_s(outcome, told) for part in told.parts if part.family not in (DRAFTS, LOOKS)}
        offs: dict[str, float] = {}
        for part, expected in told.parts.items():
            seconds = observed.get(part)
            if seconds is not None and math.isfinite(seconds) and seconds >= LEAST_S:
                off = offs[part.name] = clamped(math.log(seconds / expected.seconds))
                if part.family == DRAFTS and outcome.draft_late:
                    ratio = told.draft_factor * seconds / expected.seconds
                    self.speeds.warn(told.edge_id, told.drafter, ratio, now_s=now_s)
                self.spreads.observe(part, off, upper=expected.upper, centre=expected.centre)
                self.revision += 1
        return offs


def _other(decision: Decision, steps: StepChoice | None) -> tuple[str, float]:
    """See `Told.settled`."""
    if steps is None:
        return "", 0.0
    other = steps.fewer if decision.final_steps == steps.whole else steps.whole
    return plan_of(decision, other), steps.seconds(other) - steps.seconds(decision.final_steps)


def _final_s(outcome: Outcome, told: Told) -> float | None:
    """How long the final took, as it was decided; one that only has other steps since it came late, or soon, tells
    that, too: without these only those would be learned from that came as expected. None where it is another."""
    plan, more_s = told.settled
    if outcome.plan == told.plan or outcome.final_s is None:
        return outcome.final_s
    return outcome.final_s - more_s if outcome.plan == plan else None


def _draft_s(outcome: Outcome, told: Told) -> float | None:
    """How long the draft took at the edge that was to make it; where another was faster, at least as long as there.

    Of one that failed and was made elsewhere nothing is known.
    """
    if _by_another_version(outcome):
        return None
    return outcome.draft_s if _made_as_told(outcome, told) or (outcome.draft_late and outcome.drafted_by) else None


def _look_s(outcome: Outcome, told: Told) -> float | None:
    """The same of its first look; of one that another was faster with, or that came to nothing, nothing is known."""
    if outcome.draft_s is None or _by_another_version(outcome) or not _made_as_told(outcome, told):
        return None
    return outcome.first_look_s


def _by_another_version(outcome: Outcome) -> bool:
    """It tells nothing of what was predicted."""
    return outcome.drafted_with not in ("", outcome.draft_model)


def _made_as_told(outcome: Outcome, told: Told) -> bool:
    return outcome.drafted_by == told.drafter or (not outcome.drafted_by and told.drafter == told.edge_id)
