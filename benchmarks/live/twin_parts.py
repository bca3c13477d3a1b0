"""What the virtual twin of the live system is made of: requests on their way, edges and workers. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from adaptivegen.nodes import FINISHED_TOLD, FinishedWork
from adaptivegen.placement import Decision
from benchmarks.live.cards import FRAMES
from benchmarks.live.conduct import Spell
from benchmarks.live.watch import PATIENCE_S, Seen


@dataclass(slots=True)
class Job:
    """One request on its way."""

    number: int
    seen: Seen
    sent_s: float
    accepted_s: float = 0.0
    decision: Decision | None = None
    draft_s: float | None = None  # when it was there
    drafted_by: str = ""
    no_draft: bool = False
    late: bool = False
    copies: dict[str, str] = field(default_factory=dict)  # edge -> waiting, running, failed, dropped
    came_s: dict[str, float] = field(default_factory=dict)  # to each edge
    waiting: Callable[[], None] | None = None  # a worker, for the draft
    begun: bool = False
    final_steps: int = 0  # as told with its turn, 0: as decided

    @property
    def job_id(self) -> str:
        """Of this request."""
        return f"vid_{self.number:026d}"

    @property
    def yields_s(self) -> float:
        """For how long its draft lets others go first."""
        return self.decided.draft_yields_s

    @property
    def under_way(self) -> bool:
        """Whether a copy of its draft waits or runs."""
        return any(state in ("waiting", "running") for state in self.copies.values())

    @property
    def waits(self) -> bool:
        """Whether its draft has begun nowhere, and waits somewhere."""
        states = self.copies.values()
        return self.draft_s is None and "waiting" in states and "running" not in states

    @property
    def decided(self) -> Decision:
        """The decision; there must be one."""
        if self.decision is None:
            raise RuntimeError(f"{self.job_id} was not decided on")
        return self.decision


@dataclass(slots=True)
class Node:
    """An edge or a worker."""

    name: str
    spells: list[Spell]
    queue: list[Job] = field(default_factory=list)  # of an edge, in the order in which they came
    at_hand: Job | None = None
    next: Job | None = None  # of a worker: that begins when its model is free
    prepared: bool = False  # that one
    begun_s: float = 0.0
    ends_s: float = 0.0  # 0 while it does not generate
    seq: int = 0
    made: int = 0
    finished: deque[FinishedWork] = field(default_factory=lambda: deque(maxlen=FINISHED_TOLD))
    failed_in_row: int = 0
    links: dict[str, float] = field(default_factory=dict)

    @property
    def waiting(self) -> list[Job]:
        """Those in an edge's queue that still wait."""
        self.queue = [job for job in self.queue if job.copies[self.name] == "waiting"]
        return self.queue

    def spell(self, now_s: float) -> Spell:
        """How it behaves now."""
        return next((one for one in self.spells if one.from_s <= now_s < one.until_s), Spell(0.0, 0.0))

    def done(self, model: str, steps: int, side: int, seconds: float) -> None:
        """It has finished a generation."""
        self.made, self.failed_in_row = self.made + 1, 0
        work = {"number": self.made, "model": model, "width": side, "height": side, "frames": FRAMES}
        self.finished.append(FinishedWork(**work, steps=steps, guidance=1.0, seconds=seconds))


def patient(seen: Seen) -> Seen:
    """Without what came too late."""

    def seen_by(seconds: float | None) -> float | None:
        return seconds if seconds is not None and seconds <= PATIENCE_S else None

    first_s, draft_s, final_s = map(seen_by, (seen.first_s, seen.draft_s, seen.final_s))
    return replace(seen, first_s=first_s, draft_s=draft_s, final_s=final_s)
