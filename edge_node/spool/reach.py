"""Whether this edge reaches the centre: broker and object store together. What it does not reach, it is cut off from.

Owns the circuit (`circuit.py`), the probes that open and close it, and the bound on what a request waits for it.
Must know nothing of jobs beyond where they are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, BrokerUnavailable, DeadlineExceeded, NotFound
from adaptivegen.jobs.store import JobStore
from adaptivegen.process import end
from adaptivegen.telemetry import get_logger
from edge_node.spool.circuit import Circuit
from edge_node.spool.rules import is_cut

Result = TypeVar("Result")
PROBE_EVERY_S = 2.0  # while all is well
PROBE_CUT_EVERY_S = 0.5
PROBE_DEADLINE_S = 2.0
PROVE_DEADLINE_S = 10.0  # the store's test is many round trips


class Reach:
    """The way to the centre. `run` must be running. prove: opens and tests the store where that was not done yet;
    budget_s: what one call of a request may take."""

    def __init__(
        self,
        centre: JobStore,
        *,
        prove: Callable[[], Awaitable[None]],
        node_id: str,
        clock: Clock,
        budget_s: float,
    ) -> None:
        self._centre = centre
        self._prove = prove
        self._key = f"probe/{node_id}"
        self._clock = clock
        self._budget_s = budget_s
        self._circuit = Circuit()
        self._look = asyncio.Event()
        self._suspected = False  # a call has failed since the last probe
        self._told = ""  # the code of the failure that was logged last: not one a probe
        self.last_cut_s = 0.0  # how long the last cut took that this process saw the end of
        self.connected = asyncio.Event()
        self.connected.set()

    @property
    def cut_off(self) -> bool:
        """Whether the centre is not to be tried now."""
        return self._circuit.open

    @property
    def why(self) -> str:
        """The code of the error it is cut off by, empty while it is not: strangers see it, messages name addresses."""
        return self._circuit.why

    @property
    def cut_s(self) -> float:
        """Seconds since it was cut off; 0 while it is not."""
        return self._clock.monotonic_s() - self._circuit.since_s if self._circuit.open else 0.0

    def trip(self, error: AdaptiveGenError) -> None:
        """Cut off from the beginning: this edge starts without the centre."""
        self._circuit.trip(error.code, now_s=self._clock.monotonic_s())
        self._opened(error)

    async def call(self, work: Awaitable[Result], *, within_s: float | None = None) -> Result:
        """Await a call of the centre within the budget, or `within_s`. Raises what it raises, and DeadlineExceeded."""
        try:
            return await _within(self._budget_s if within_s is None else within_s, work)
        except AdaptiveGenError as exc:
            self.failed(exc)
            raise

    def failed(self, error: AdaptiveGenError) -> None:
        """A call of the centre ended so; what says nothing about the way there is not counted.

        Is it the way there, or one bad object? A probe tells: calls count once until it has, and not while cut off."""
        if not is_cut(error) or self._circuit.open:
            return
        self._look.set()
        if not self._suspected:
            self._suspected = True
            self._circuit.failed(error.code, now_s=self._clock.monotonic_s())

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            await self.probe()
            self._look.clear()
            await self._pause(PROBE_CUT_EVERY_S if self.cut_off else PROBE_EVERY_S)

    async def probe(self) -> None:
        """Ask broker and store for something small; while cut off, or where a call has failed, write it, too."""
        suspected, self._suspected = self._suspected, False
        try:
            await _within(PROVE_DEADLINE_S, self._safely(self._prove()))
            await _within(PROBE_DEADLINE_S, self._safely(self._ask(write=self.cut_off or suspected)))
        except AdaptiveGenError as exc:
            if exc.code != self._told:
                get_logger().warning("probe_failed", code=exc.code, error=exc.message)
            self._told = exc.code
            if self._circuit.failed(exc.code, now_s=self._clock.monotonic_s()):
                self._opened(exc)
            return
        self._told = ""
        now_s = self._clock.monotonic_s()
        if self._circuit.worked(now_s=now_s):
            self.last_cut_s = now_s - self._circuit.since_s
            self.connected.set()
            get_logger().info("cut_off_over")

    async def _safely(self, asking: Awaitable[None]) -> None:
        """A bug met by a probe must not end the edge, and is no answer."""
        try:
            await asking
        except AdaptiveGenError:
            raise
        except Exception as exc:
            get_logger().error("unexpected_error", what="probe", exc_info=exc)
            raise BrokerUnavailable(f"{type(exc).__name__}: {exc}") from exc

    async def _ask(self, *, write: bool) -> None:
        await self._centre.index.complete()
        if write:
            await self._centre.blob.put(self._key, b"")
        try:
            await self._centre.blob.get(self._key)
        except NotFound:
            return

    def _opened(self, error: AdaptiveGenError) -> None:
        self.connected.clear()
        get_logger().warning("cut_off", code=error.code, error=error.message)

    async def _pause(self, seconds: float) -> None:
        """Sleep, while cut off through all; else until a call has failed."""
        if self.cut_off:
            await self._clock.sleep(seconds)
            return
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(self._clock.sleep(seconds)), group.create_task(_until(self._look))]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            await end(*waits)


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def _within(seconds: float, work: Awaitable[Result]) -> Result:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as exc:
        raise DeadlineExceeded(f"broker and store did not answer in {seconds:g} s") from exc
