"""Whose turn it is at a model: one at a time, tenants in turns and each one's as they come, but who yields lets others
go first for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from adaptivegen.clock import Clock
from adaptivegen.drafting import Wait, goes_next

MAX_TENANTS = 256  # of which it is known what they have had; of more only those that wait
MOST_CHARGED_S = 10.0  # of one turn: what took longer went wrong, which is not its tenant's fault


@dataclass(slots=True, eq=False)
class _Waiting:
    """One that waits for its turn; yields_s: see `drafting`."""

    tenant: str
    came_s: float
    yields_s: float
    turn: asyncio.Future[None]


class Turns:
    """A lock whose next holder is chosen when it is given back (`drafting.goes_next`). While anybody waits it keeps for
    how long tenants had it; who begins to wait has had as much as the least of those that wait already."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held = False
        self._holder, self._since_s = "", 0.0
        self._jumped = False  # whether who has the turn was not the first of those that waited
        self._served_s: dict[str, float] = {}  # by tenant
        self._waiting: list[_Waiting] = []  # as they came

    @property
    def held(self) -> bool:
        """Whether it is anybody's turn."""
        return self._held

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def acquire(self, *, tenant: str = "", yields_s: float = 0.0) -> None:
        """Wait for a turn, which `release` ends."""
        if not self._held:  # then nobody waits: a turn is handed on as it ends
            self._begin(tenant)
            return
        one = _Waiting(tenant, self._clock.monotonic_s(), yields_s, asyncio.get_running_loop().create_future())
        waiting = {other.tenant for other in self._waiting}
        if tenant not in waiting:
            least_s = min((self._served_s.get(other, 0.0) for other in waiting), default=0.0)
            self._served_s[tenant] = max(self._served_s.get(tenant, 0.0), least_s)
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
            self._held, self._holder, self._jumped = False, "", False
            self._served_s.clear()
            return
        now_s, served_s = self._clock.monotonic_s(), self._served_s
        took_s = min(MOST_CHARGED_S, now_s - self._since_s)
        served_s[self._holder] = served_s.get(self._holder, 0.0) + took_s
        if len(served_s) > MAX_TENANTS:
            self._served_s = served_s = {one.tenant: served_s.get(one.tenant, 0.0) for one in waiting}
        waits = [Wait(now_s - one.came_s, one.yields_s, served_s.get(one.tenant, 0.0)) for one in waiting]
        chosen = waiting[goes_next(waits, jumped=self._jumped)]
        self._jumped = chosen is not waiting[0]
        self._waiting.remove(chosen)
        self._begin(chosen.tenant)
        chosen.turn.set_result(None)

    def ready(self) -> None:
        """What had to come before is done: from now on the turn counts for who has it."""
        self._since_s = self._clock.monotonic_s()

    def _begin(self, tenant: str) -> None:
        self._held, self._holder, self._since_s = True, tenant, self._clock.monotonic_s()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Have a turn while the block lasts."""
        await self.acquire()
        try:
            yield
        finally:
            self.release()
