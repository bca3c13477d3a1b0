"""Whose turn it is at a model: one at a time, as they come, but who yields lets others go first for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from adaptivegen.clock import Clock
from adaptivegen.drafting import Wait, goes_next


@dataclass(slots=True, eq=False)
class _Waiting:
    """One that waits for its turn; yields_s: see `drafting`."""

    came_s: float
    yields_s: float
    turn: asyncio.Future[None]


class Turns:
    """A lock whose next holder is chosen when it is given back (`drafting.goes_next`)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held = False
        self._waiting: list[_Waiting] = []  # as they came

    @property
    def held(self) -> bool:
        """Whether it is anybody's turn."""
        return self._held

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def acquire(self, *, yields_s: float = 0.0) -> None:
        """Wait for a turn, which `release` ends."""
        if not self._held:  # then nobody waits: a turn is handed on as it ends
            self._held = True
            return
        one = _Waiting(self._clock.monotonic_s(), yields_s, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        try:
            await one.turn
        except asyncio.CancelledError:
            if one in self._waiting:
                self._waiting.remove(one)
            else:  # it was its turn in the very moment in which it was cancelled
                self.release()
            raise

    def release(self) -> None:
        """End a turn; whoever goes next has it at once."""
        waiting = [one for one in self._waiting if not one.turn.done()]  # the others were cancelled a moment ago
        if not waiting:
            self._held = False
            return
        now_s = self._clock.monotonic_s()
        chosen = waiting[goes_next([Wait(now_s - one.came_s, one.yields_s) for one in waiting])]
        self._waiting.remove(chosen)
        chosen.turn.set_result(None)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Have a turn while the block lasts."""
        await self.acquire()
        try:
            yield
        finally:
            self.release()
