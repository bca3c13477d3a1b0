"""The copies of one draft at one or two edges, of which the first that has it wins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from adaptivegen.drafting import MOST_YIELDS_S
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.generation.messages import Generated, Step
from adaptivegen.jobs.spec import JobSpec


@dataclass(slots=True)
class Copy:
    """One attempt at one edge with one version, made at asked_s. taken: another edge has said that it waits there, or
    is made; begun: its turn has come, which another edge does not tell before its first step; started: that is done;
    dropped: another was faster, so it was stopped."""

    edge_id: str
    version: str
    asked_s: float
    taken: bool = False
    begun: bool = False
    started: bool = False
    dropped: bool = False
    generated: Generated | None = None
    error: AdaptiveGenError | None = None
    task: asyncio.Task[None] | None = None

    def take(self) -> None:
        """The other edge has it."""
        self.taken = True

    def stop(self) -> None:
        """End it, if it has not ended; its model stops within a step."""
        if self.task is not None and not self.task.cancelling():  # once: a model that is stopping is let finish that
            self.task.cancel()

    @property
    def running(self) -> bool:
        return self.generated is None and self.error is None and not self.dropped


@dataclass(slots=True)
class Race:
    """The copies of one draft. Only the looks of the first that started are shown."""

    spec: JobSpec
    start_mp4: bytes | None
    show: Callable[[Step], None]
    failed: Callable[[str], None]
    tied: bool = False  # it was time to let the draft wait at the backup, too
    hedged: bool = False  # it was time to have it begun there, too
    blamed: bool = False  # the job's version has failed, wherever
    silent: bool = False  # another edge has said nothing for too long: whatever the reason, home tries another version
    late: Copy | None = None  # because of which a second copy was begun that may run beside it
    slow: Copy | None = None  # because of which one was begun that waits like it
    copies: list[Copy] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, copy: Copy) -> None:
        """A copy's turn has come."""
        if not copy.begun:
            copy.begun = True
            self.changed.set()

    def step(self, copy: Copy, step: Step) -> None:
        """A copy goes on."""
        self.begin(copy)
        copy.started = True
        if self.leader is copy:
            self.show(step)

    @property
    def first_edge_id(self) -> str:
        """Where it was to be made; there must be a copy."""
        return self.copies[0].edge_id

    @property
    def leader(self) -> Copy | None:
        """The first of those under way that has a step done."""
        return next((copy for copy in self.copies if copy.started and copy.running), None)

    @property
    def running(self) -> Copy | None:
        """The first of the copies that are under way."""
        return next((copy for copy in self.copies if copy.running), None)

    @property
    def begun(self) -> bool:
        """Whether one of these has begun to generate."""
        return any(copy.begun and copy.running for copy in self.copies)

    def second_after_s(self) -> float | None:
        """After how long a second copy is due, to wait like the first or to run beside it; None where none is."""
        decision = self.spec.decision
        yields_s = min(decision.draft_yields_s, MOST_YIELDS_S)  # for which it waits of its own accord
        late_s = decision.backup_after_s + yields_s if not self.hedged else None
        tied_s = decision.tied_after_s if self._may_be_tied else None
        return min((seconds for seconds in (tied_s, late_s) if seconds is not None), default=None)

    @property
    def _may_be_tied(self) -> bool:
        return self.spec.decision.tied_after_s > 0 and not self.tied and not self.begun

    def second_is_due(self, elapsed_s: float) -> Literal["tied", "hedged", ""]:
        """For which of the two it is time after so long, each once; empty for neither, as when it has begun since."""
        after_s = self.second_after_s()
        if after_s is None or elapsed_s < after_s or self.running is None:
            return ""
        if self._may_be_tied and self.spec.decision.tied_after_s == after_s:
            self.tied = True
            return "tied"
        self.hedged = True
        return "hedged"

    def not_tried(self, places: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
        """The first of these edges and versions that has had no copy but such as were dropped; None when all have."""
        tried = {(copy.edge_id, copy.version) for copy in self.copies if not copy.dropped}
        return next((place for place in places if place[0] and place not in tried), None)

    def last_error(self, home: str) -> AdaptiveGenError:
        """Of the copies, where all but dropped ones have failed: home's own, for it says why, else the last."""
        errors = {copy.edge_id: copy.error for copy in self.copies if copy.error is not None}
        return errors.get(home) or list(errors.values())[-1]

    def failed_at(self, edge_id: str) -> AdaptiveGenError | None:
        """How the last copy at this edge failed, if it did."""
        errors = [copy.error for copy in self.copies if copy.edge_id == edge_id and copy.error]
        return errors[-1] if errors else None

    def blame(self, version: str) -> None:
        """A version has failed at the job."""
        self.blamed = self.blamed or version == self.spec.draft_model
        self.failed(version)

    def superfluous(self) -> list[Copy]:
        """Copies that have no step done while another has: one that has only begun may fail at once."""
        return [copy for copy in self.copies if copy.running and not copy.started] if self.leader else []
