"""Where a draft is really made: here, at the edge that was decided on, or at both when the first is late.

A draft that has begun nowhere by when it should have waits at a second edge, too, and of two copies that wait the one
that starts first ends the other (tied requests; Dean and Barroso 2013). A second copy is begun beside the first when
that has outlasted what almost all such drafts take (hedging). A place that fails is followed by the next. All within
budgets. A version of the model that is tried must cost nobody a draft: where it has failed, or
takes far too long, the one that serves drafts here. Owns the budgets, and what handing drafts over takes by peer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from adaptivegen.clock import Clock
from adaptivegen.errors import (
    AdaptiveGenError,
    Cancelled,
    DeadlineExceeded,
    GenerationFailed,
    InternalError,
    InvalidRequest,
    NodeUnavailable,
    ResourceExhausted,
    StorageFailure,
    Unavailable,
)
from adaptivegen.generation.messages import Generated, Step
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.models.base import GenerationInput
from adaptivegen.placement import Attempt
from adaptivegen.process import guarded
from adaptivegen.rpc.draft import TAKEN_WITHIN_S, DraftClient, DraftOrder, Lent
from adaptivegen.telemetry import get_logger
from edge_node.draft.budget import Budgets
from edge_node.draft.command import draft_command
from edge_node.draft.links import Links
from edge_node.draft.models import DraftModels, usual_s
from edge_node.draft.race import Copy, Race

LEAST_S, MOST_S = 10.0, 120.0  # that a draft is waited for at another edge, or of a version that is tried
PATIENCE = 5.0  # times what was predicted, between these


@dataclass(frozen=True, slots=True)
class Made:
    """A draft, the edge that made it and the version of the model; note: why that is not the job's, empty where it is.

    late: the edge that was to make it was still at it when a second copy was begun, and when that was there.
    """

    generated: Generated
    edge_id: str
    version: str
    steps: int
    note: str = ""
    late: bool = False


class DraftPlaces:
    """Makes drafts for one edge. attempted: is told how it went at another edge."""

    def __init__(
        self,
        *,
        node_id: str,
        models: DraftModels,
        peers: DraftClient,
        clock: Clock,
        attempted: Callable[[Attempt], None],
    ) -> None:
        self._node_id = node_id
        self._models = models
        self._peers = peers
        self._clock = clock
        self._attempted = attempted
        self._budgets = Budgets()
        self._links = Links()

    @property
    def links(self) -> dict[str, float]:
        """Seconds that handing a draft over takes, by peer, for the heartbeat."""
        return self._links.told(now_s=self._clock.monotonic_s())

    async def make(
        self,
        spec: JobSpec,
        start_mp4: bytes | None,
        show: Callable[[Step], None],
        *,
        group: asyncio.TaskGroup,
        failed: Callable[[str], None] = lambda version: None,
    ) -> Made:
        """The draft of an accepted job; if the calling task is cancelled, all copies stop.

        group: owns the copies, which may outlive the call by the time a model takes to stop; failed: is told each
        version that has failed at it. Raises what the last place raised.
        """
        self._budgets.deposit()
        race = Race(spec, start_mp4, show, failed)
        came_s = self._clock.monotonic_s()
        try:
            self._enter(race, spec.decision.draft_edge_id or self._node_id, spec.draft_model, group)
            while (won := await self._step(race, group, came_s)) is None:
                pass
        finally:
            for copy in race.copies:
                copy.stop()
        won = replace(won, late=self._was_late(race, won))
        if won.edge_id != self._node_id or len(race.copies) > 1:
            get_logger().info("draft_made_at", job_id=spec.id, edge=won.edge_id, copies=len(race.copies))
        return won

    def _was_late(self, race: Race, won: Made) -> bool:
        """Whether the copy because of which a second one was begun beside it was still at it. Of one that only had to
        wait longer than the other that is not known. One elsewhere that had not even started, or said nothing at all,
        is told of."""
        late = race.late or race.slow
        if late is None or late.edge_id == won.edge_id or late.error is not None:
            return False
        asked_for_s = self._clock.monotonic_s() - late.asked_s
        reads = asked_for_s < min(TAKEN_WITHIN_S, race.spec.decision.backup_after_s)
        waits = late is race.slow and (late.taken or reads)
        silent = not (late.started or waits)
        if silent and late.edge_id != self._node_id and not self._is_tried(late.version):
            code = DeadlineExceeded.code
            self._attempted(Attempt(node_id=late.edge_id, reporter=self._node_id, ok=False, code=code))
        return late is race.late and late.edge_id == race.first_edge_id

    async def _step(self, race: Race, group: asyncio.TaskGroup, came_s: float) -> Made | None:
        """Wait until something has changed or a second copy is due, and act on it; the draft once there is one."""
        version = self._models.serving.name if race.blamed else race.spec.draft_model
        places = [(race.spec.decision.backup_edge_id, version), (race.first_edge_id, version)]
        backup = race.not_tried(places)  # the first may have been dropped for the backup since
        after_s = race.second_after_s() if backup else None
        left_s = max(0.0, came_s + after_s - self._clock.monotonic_s()) if after_s is not None else None
        try:
            async with asyncio.timeout(left_s):
                await race.changed.wait()
        except TimeoutError:
            if backup and not race.changed.is_set():
                self._second(race, backup, group, elapsed_s=self._clock.monotonic_s() - came_s)
            return None
        race.changed.clear()
        for copy in race.copies:
            if copy.generated is not None:
                return self._won(race, copy, copy.generated)
        for copy in race.superfluous():
            copy.dropped = True
            copy.stop()
        if race.running is None:
            self._try_next(race, group)
        return None

    def _second(self, race: Race, backup: tuple[str, str], group: asyncio.TaskGroup, *, elapsed_s: float) -> None:
        """Begin a second copy, as far as the budgets go: one to wait like the first, or one that may run beside it."""
        why, slow = race.second_is_due(elapsed_s), race.running
        if not why or not (self._budgets.ties if why == "tied" else self._budgets.hedges).withdraw():
            return
        if why == "tied":
            race.slow = slow
        else:
            race.late = slow
        get_logger().info(f"draft_{why}", job_id=race.spec.id, edge=backup[0])
        self._enter(race, *backup, group)

    def _try_next(self, race: Race, group: asyncio.TaskGroup) -> None:
        """All copies have failed: begin at home, or at the backup while the budget lasts; else raise.

        Home needs no budget: its own queue bounds it, and it is what the client asked in the first place.
        """
        error = race.last_error(self._node_id)
        own = race.failed_at(self._node_id)
        place = race.not_tried(self._places(race))
        if place is None or isinstance(own, Cancelled):
            raise error
        edge_id, version = place
        refused = isinstance(own, InvalidRequest)  # here; of a peer's refusal that says nothing
        if edge_id != self._node_id and (refused or not self._budgets.retries.withdraw()):
            raise error
        again = {"edge": edge_id, "model": version, "code": error.code, "error": error.message}
        get_logger().warning("draft_tried_again", job_id=race.spec.id, **again)
        self._enter(race, edge_id, version, group)

    def _places(self, race: Race) -> list[tuple[str, str]]:
        """Where it may be tried, and with which version: of one that is tried once is enough, if it was its fault."""
        decision, home, serving = race.spec.decision, self._node_id, self._models.serving.name
        asked = self._models.held(race.spec.draft_model).card.name
        first = [(home, asked)] if not (race.blamed or race.silent) else []
        dropped = [(copy.edge_id, serving if race.blamed else asked) for copy in race.copies if copy.dropped]
        return [*first, (home, serving), *dropped, (decision.backup_edge_id, serving)]

    def _is_tried(self, version: str) -> bool:
        """Whether it is another than the one that serves."""
        return version != self._models.serving.name

    def _enter(self, race: Race, edge_id: str, version: str, group: asyncio.TaskGroup) -> None:
        """Begin a copy."""
        if edge_id == self._node_id:
            version = self._models.held(version).card.name  # it may not be loaded here any more
        copy = Copy(edge_id, version, self._clock.monotonic_s())
        race.copies.append(copy)
        copy.task = group.create_task(guarded("draft copy", self._run(race, copy)))

    async def _run(self, race: Race, copy: Copy) -> None:
        try:
            at_home = copy.edge_id == self._node_id
            copy.generated = await (self._here(race, copy) if at_home else self._borrow(race, copy))
        except AdaptiveGenError as exc:
            copy.error = exc
            race.silent = race.silent or (isinstance(exc, DeadlineExceeded) and not at_home)
            if _blames_model(exc, at_home=at_home):
                race.blame(copy.version)
        except Exception as exc:  # a bug met by one copy must not leave the job waiting
            get_logger().error("unexpected_error", job_id=race.spec.id, exc_info=exc)
            copy.error = InternalError(f"{type(exc).__name__}: {exc}")
            if at_home:
                race.blame(copy.version)
        finally:
            race.changed.set()

    async def _here(self, race: Race, copy: Copy) -> Generated:
        """The draft by a model of this edge; one that is tried is not waited for for ever."""
        held = self._models.held(copy.version)
        copy.version = held.card.name  # it may have gone since this was begun
        command = draft_command(race.spec, held.card, has_start=race.start_mp4 is not None)
        within_s = self._patience_s(race, copy) if self._is_tried(copy.version) else None
        began = False
        try:
            async with self._models.using(held) as runner, asyncio.timeout(within_s) as limit:

                def at_it() -> None:
                    if within_s is not None:
                        limit.reschedule(asyncio.get_running_loop().time() + within_s)

                def on_begin() -> None:
                    nonlocal began
                    began = True
                    at_it()
                    race.begin(copy)

                def on_step(step: Step) -> None:
                    at_it()
                    race.step(copy, step)

                return await runner.generate(
                    command,
                    race.start_mp4,
                    on_step,
                    tenant=race.spec.tenant,
                    yields_s=race.spec.decision.draft_yields_s,
                    on_begin=on_begin,
                )
        except TimeoutError as exc:
            if not began:  # what was ahead of it took so long; whose fault that is those drafts tell
                raise ResourceExhausted(f"{copy.version} did not begin within {within_s:g} s") from exc
            raise GenerationFailed(f"{copy.version} did not draft within {within_s:g} s") from exc

    def _patience_s(self, race: Race, copy: Copy) -> float:
        """How long a copy is waited for, by what was predicted; here by what is ahead of it, where nothing was."""
        place, held = race.spec.decision.place(copy.edge_id), self._models.held(copy.version)
        expected_s = place.draft_s if place is not None else (1 + held.runner.queued) * usual_s(held.card)
        return min(MOST_S, max(LEAST_S, PATIENCE * expected_s))

    def _won(self, race: Race, copy: Copy, generated: Generated) -> Made:
        spec, version = race.spec, copy.version
        steps = draft_command(spec, self._models.card(version), has_start=False).request.steps
        note = ""
        if version != spec.draft_model:
            why = "had failed at it" if race.blamed else "was not to be had"
            note = f"{spec.draft_model} {why}, so {version} made the draft"
        return Made(generated, copy.edge_id, version, steps, note)

    async def _borrow(self, race: Race, copy: Copy) -> Generated:
        """The draft from another edge, which is told on."""
        spec = race.spec
        place = spec.decision.place(copy.edge_id)
        card = self._models.card(copy.version)
        order = DraftOrder(spec.tenant, spec.id, spec.draft_token, card.digest)
        begun_s = self._clock.monotonic_s()
        try:
            if place is None:
                raise NodeUnavailable(f"the address of edge {copy.edge_id} is not known")
            patience_s, at_it = self._patience_s(race, copy), partial(race.step, copy)
            lent = await self._peers.borrow(place.address, order, at_it, on_taken=copy.take, deadline_s=patience_s)
            self._check(lent, draft_command(spec, card, has_start=False).request)
        except (Unavailable, DeadlineExceeded, GenerationFailed, InternalError) as exc:  # that edge's fault, or its way
            if not (self._is_tried(copy.version) and _blames_model(exc, at_home=False)):
                self._attempted(Attempt(node_id=copy.edge_id, reporter=self._node_id, ok=False, code=exc.code))
            raise
        self._attempted(Attempt(node_id=copy.edge_id, reporter=self._node_id, ok=True))
        now_s = self._clock.monotonic_s()
        self._links.observe(copy.edge_id, now_s - begun_s - lent.took_s, now_s=now_s)
        return lent.generated

    @staticmethod
    def _check(lent: Lent, wanted: GenerationInput) -> None:
        """Raises InternalError for a clip of another shape than was asked for."""
        made = lent.generated
        if (made.width, made.height, made.frames) != (wanted.width, wanted.height, wanted.frames):
            told = f"{made.width}x{made.height} with {made.frames} frames"
            raise InternalError(f"a lent draft is {told}, not {wanted.width}x{wanted.height} with {wanted.frames}")


def _blames_model(error: AdaptiveGenError, *, at_home: bool) -> bool:
    """Whether it was the model that failed: not its queue, nor the way to it; here also one that cannot be started."""
    if isinstance(error, (Cancelled, ResourceExhausted, StorageFailure)):
        return False
    return at_home or isinstance(error, (GenerationFailed, InternalError, InvalidRequest))
