"""Empties the spool while the centre is within reach: oldest first, one job at a time, at a pace (`pace.py`).

Owns the loop, and the rests of jobs that could not be handed over. A failure of the way there ends the pass, and
counts for the circuit; one of a single job lets the next have its turn.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, DeadlineExceeded, platform_fault
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import Deleted, JobSpec
from adaptivegen.jobs.store import JobStore
from adaptivegen.placement import Decision
from adaptivegen.telemetry import get_logger
from edge_node.spool.handover import hand_over
from edge_node.spool.own_store import SpoolFailure
from edge_node.spool.pace import EVERYBODY, Pace
from edge_node.spool.reach import Reach
from edge_node.spool.rules import Later, PutOff, deadline_left_s, is_cut
from edge_node.spool.spool import Envelope, Name, Spool

LOOK_AGAIN_S = 0.3  # while drafts are in the making
HANDOVER_S = 30.0  # that one job may take
FIRST_REST_S, LONGEST_REST_S = 1.0, 300.0  # of a job that the centre does not take
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0  # of all, where the way there fails


class Drainer:
    """The way out of the spool. drafting: whether a job's draft is in the making; handed: is told of each job that the
    centre has; gone: of those that were deleted there; begin_draft: starts the draft of a job that a former life of
    this edge left without."""

    def __init__(
        self,
        *,
        spool: Spool,
        reach: Reach,
        centre: JobStore,
        clock: Clock,
        node_id: str,
        again: Callable[[JobSpec, bool], Awaitable[Decision | Later | None]],
        rng: random.Random,
        drafting: Callable[[str, str], bool],
        handed: Callable[[Envelope, JobSpec, JobRecord], Awaitable[None]],
        gone: Callable[[str], None],
        begin_draft: Callable[[JobSpec, JobRecord], Awaitable[None]],
    ) -> None:
        self._spool = spool
        self._reach = reach
        self._centre = centre
        self._clock = clock
        self._node_id = node_id
        self._again = again
        self._drafting = drafting
        self._handed = handed
        self._gone = gone
        self._begin_draft = begin_draft
        self._rests: dict[Name, tuple[float, float]] = {}  # until, and how long the next is
        self._pause_s = FIRST_PAUSE_S
        self._pace = Pace(rng)
        self.on_drained: Callable[[], None] | None = None

    async def run(self) -> None:
        """Drain until cancelled."""
        await self._resume_drafts()
        if len(self._spool):
            self._spool.filled.set()
        back_after_s: float | None = self._oldest_s()  # of a cut that a former life saw; None once waited for
        while True:
            await self._spool.filled.wait()
            if not self._reach.connected.is_set():
                await self._reach.connected.wait()
                back_after_s = max(back_after_s or 0.0, self._reach.last_cut_s)
            if back_after_s is not None:
                wait_s, back_after_s = self._pace.back(cut_s=back_after_s), None
                get_logger().info("handing_over", jobs=len(self._spool), in_s=round(wait_s, 3))
                await self._clock.sleep(wait_s)
                continue  # it may be gone again
            try:
                whole = await self.drain()
            except Exception as exc:  # a bug must not keep all that is in the spool there
                get_logger().error("unexpected_error", what="drain", exc_info=exc)
                whole = False
            if not whole:
                await self._clock.sleep(self._pace.longer(self._pause_s))
                self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
            elif len(self._spool):
                await self._clock.sleep(LOOK_AGAIN_S)
            else:
                self._spool.filled.clear()

    async def drain(self) -> bool:
        """One pass over what is in the spool now; False where it ended early, because the way to the centre fails."""
        for envelope in self._spool.held:
            until_s, _ = self._rests.get(envelope.name, (0.0, 0.0))
            if self._drafting(*envelope.name) or self._clock.monotonic_s() < until_s:
                continue
            try:
                await self._one(envelope)
            except PutOff as exc:
                _, rest_s = self._rests.get(envelope.name, (0.0, FIRST_REST_S))
                self._rests[envelope.name] = self._clock.monotonic_s() + (exc.retry_after_s or 0.0), rest_s
                continue  # nothing was handed over, and the next may be somebody else's
            except AdaptiveGenError as exc:
                get_logger().warning(
                    "not_handed_over", job_id=envelope.id, tenant=envelope.tenant, code=exc.code, error=exc.message
                )
                self._rest(envelope)  # the others have their turn first, whatever is the matter
                if not isinstance(exc, SpoolFailure) and (is_cut(exc) or platform_fault(exc)):
                    self._reach.failed(exc)
                    return False
            except Exception as exc:  # a bug met by one job must not keep all others here
                get_logger().error("unexpected_error", what="handover", job_id=envelope.id, exc_info=exc)
                self._rest(envelope)
            else:
                self._pause_s = FIRST_PAUSE_S
            await self._clock.sleep(self._pace.gap_s())
        return True

    def _oldest_s(self) -> float:
        """For how long the oldest job is here."""
        held = self._spool.held
        return (self._clock.now_ns() - held[0].spooled_at_ns) / 1e9 if held else 0.0

    async def _ask(self, spec: JobSpec, drafted: bool) -> Decision | None:
        """A scheduler's decision on a final; raises PutOff where it is to wait for one."""
        age_s = (self._clock.now_ns() - spec.created_at_ns) / 1e9
        left_s = deadline_left_s(spec.request.deadline_s, age_s=age_s)
        wait_s = self._pace.held_s(spec.tenant, now_s=self._clock.monotonic_s())
        if wait_s > 0 and (left_s is None or left_s >= wait_s):
            raise PutOff(f"{spec.id} waits until schedulers have room", retry_after_s=wait_s)
        decided = await self._again(spec, drafted)
        if not isinstance(decided, Later):
            if decided is not None:
                self._pace.taken(spec.tenant)
            return decided
        wait_s = self._pace.refused(
            spec.tenant if decided.of_tenant else EVERYBODY,
            decided.retry_after_s,
            now_s=self._clock.monotonic_s(),
            left_s=left_s,
        )
        get_logger().info("no_room_for_final", job_id=spec.id, code=decided.code, waits_s=round(wait_s, 3))
        if wait_s > 0:
            raise PutOff(f"{spec.id}: schedulers have no room ({decided.code})", retry_after_s=wait_s)
        return None

    async def _one(self, envelope: Envelope) -> None:
        async with self._spool.lock(*envelope.name):
            if self._spool.state(*envelope.name) == "absent" or self._drafting(*envelope.name):
                return
            try:
                async with asyncio.timeout(HANDOVER_S):
                    spec, record = await hand_over(
                        envelope, spool=self._spool, centre=self._centre, again=self._ask, node_id=self._node_id
                    )
            except Deleted:  # at another edge, or by an operator, since the centre was told of it
                if envelope.key:
                    await self._spool.seen.keep(envelope.tenant, envelope.key, envelope.id, envelope.body)
                await self._spool.remove(await self._spool.jobs.first_spec(*envelope.name))
                self._rests.pop(envelope.name, None)
                self._gone(envelope.id)
                get_logger().info("deleted_meanwhile", job_id=envelope.id, tenant=envelope.tenant)
                return
            except TimeoutError as exc:
                raise DeadlineExceeded(f"{envelope.id} was not handed over in {HANDOVER_S:g} s") from exc
        self._rests.pop(envelope.name, None)
        if self.on_drained is not None:
            self.on_drained()
        get_logger().info("job_handed_over", job_id=spec.id, status=record.status, left=len(self._spool))
        await self._handed(envelope, spec, record)

    def _rest(self, envelope: Envelope) -> None:
        _, rest_s = self._rests.get(envelope.name, (0.0, FIRST_REST_S))
        self._rests[envelope.name] = self._clock.monotonic_s() + rest_s, min(LONGEST_REST_S, rest_s * 2)

    async def _resume_drafts(self) -> None:
        try:
            for spec, record in await self._spool.open_drafts():
                await self._begin_draft(spec, record)
        except AdaptiveGenError as exc:  # finals do without
            get_logger().warning("drafts_not_resumed", code=exc.code, error=exc.message)
