"""One job that has not ended, as placement sees it. Pure data, also from scheduler to scheduler."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from adaptivegen.nodes import Finite, NameOrNone, Seconds
from adaptivegen.placement import Tier, ToldSteps
from scheduler.decide.qoe import NEVER_S


def is_awaited(intent: str, *, asked_for: bool) -> bool:
    """Whether somebody waits for a final; asked_for: its draft was seen before, and then the final was wanted."""
    return intent == "render" or asked_for


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Nanoseconds = Annotated[int, Field(ge=0, lt=2**63)]


class Newcomer(NamedTuple):
    """A job that could join a line. deadline_at_ns: 0 where it has none; awaited, good_until_ns: see `OpenJob`; work_s:
    of a worker, 0 where that is not known."""

    tenant: str
    tier: Tier = "default"
    weight: float = 1.0
    deadline_at_ns: int = 0
    awaited: bool = True
    good_until_ns: int = 0
    work_s: float = 0.0


class StepChoice(BaseModel):
    """A final that may have fewer steps: these, and a worker's seconds for each number. moves_s: beside them, for
    moving clips; dear_from_s: where the jobs that wait need a worker for so long, they lose more by all of its steps
    than it gains."""

    model_config = ConfigDict(frozen=True)

    whole: Annotated[int, Field(ge=1, le=1000)]
    whole_s: Seconds
    fewer: Annotated[int, Field(ge=1, le=1000)]
    fewer_s: Seconds
    moves_s: Seconds = 0.0
    dear_from_s: Seconds = NEVER_S

    def seconds(self, steps: int) -> float:
        """Of a worker, for one of the two numbers."""
        return self.whole_s if steps == self.whole else self.fewer_s


class SentDraft(BaseModel):
    """A draft that a decision has sent to an edge. asked_by: the edge that asked; work_s: predicted there; session: the
    request's, empty for none; gain: QoE by which another edge would have been better."""

    model_config = ConfigDict(frozen=True)

    edge_id: Name
    asked_by: Name
    work_s: Seconds = 0.0
    session: NameOrNone = ""
    gain: Finite = 0.0


class OpenJob(BaseModel):
    """A placed job. Times are wall nanoseconds of the scheduler that tells of it.

    pool and model: of its final, empty where none is wanted; work_s: seconds a worker is predicted to need for it, of
    which gpu_s to generate; ends_at_ns: when it is predicted to end; ready_at_ns: when its draft is predicted to be
    there, 0 where it needs none or has it; deadline_at_ns: when it is needed, 0 for none; awaited: see `is_awaited`;
    good_until_ns: until then its final counts in full, by the policy it was placed with, 0: not known; decided_at_ns:
    of its decision, as that says itself; steps: which of them it has is settled when its turn comes, None where that is
    decided; settled_steps: as it was settled last, 0: not yet, others_wait: fewer for the sake of others; guessed:
    nothing is known but that it waits; sent: its draft, where one was sent to an edge with this decision.
    """

    model_config = ConfigDict(frozen=True)

    job_id: Annotated[str, Field(min_length=1, max_length=64)]
    tenant: Name
    tier: Tier = "default"
    pool: NameOrNone = ""
    model: Annotated[str, Field(max_length=63)] = ""
    work_s: Seconds = 0.0
    gpu_s: Seconds = 0.0
    placed_at_ns: Nanoseconds
    ends_at_ns: Nanoseconds = 0
    ready_at_ns: Nanoseconds = 0
    deadline_at_ns: Nanoseconds = 0
    awaited: bool = True
    good_until_ns: Nanoseconds = 0
    decided_at_ns: Nanoseconds = 0
    steps: StepChoice | None = None
    settled_steps: Annotated[int, Field(ge=0, le=1000)] = 0
    others_wait: bool = False
    guessed: bool = False
    sent: SentDraft | None = None

    @property
    def least_s(self) -> float:
        """Seconds that a worker needs for it at least."""
        return self.work_s if self.steps is None else min(self.work_s, self.steps.fewer_s)

    def with_steps(self, told: ToldSteps) -> OpenJob:
        """The same with one of the two numbers of steps."""
        if self.steps is None or not self.work_s:
            return self
        settled = {"settled_steps": told.steps, "others_wait": told.others_wait}
        return self.expecting(told.steps).model_copy(update=settled)

    def expecting(self, steps: int) -> OpenJob:
        """The same with a worker's seconds for one of the two numbers of steps, which is not settled yet."""
        if self.steps is None or not self.work_s:
            return self
        work_s = self.steps.seconds(steps)
        return self.model_copy(update={"work_s": work_s, "gpu_s": self.gpu_s * work_s / self.work_s})

    @property
    def told_steps(self) -> ToldSteps:
        """As it was settled last."""
        return ToldSteps(self.settled_steps, self.others_wait)

    @property
    def wants_final(self) -> bool:
        """Whether a worker has to do something for it."""
        return bool(self.pool)
