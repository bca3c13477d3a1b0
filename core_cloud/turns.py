"""Whose turn it is: before a worker begins the job whose message came, it asks a scheduler which job is due.

The queue is first come, first served; who is due depends on tenants' shares and tiers, which schedulers know. Nothing
is lost by asking: the message of a job that is put off goes back into the queue, and the message of one that is begun
out of its order stays there and is dropped when it comes. Without a scheduler the queue's order holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from adaptivegen.bus.base import Delivery
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.jobs.store import JobMessage
from adaptivegen.placement import AS_DECIDED, Ticket, ToldSteps, Turn
from adaptivegen.rpc.placement_client import PlacementClient
from adaptivegen.telemetry import get_logger


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job that this worker now holds, and the message that is settled with it. told: with its turn."""

    delivery: Delivery
    spec: JobSpec
    record: JobRecord
    told: ToldSteps = AS_DECIDED


@dataclass(frozen=True, slots=True)
class Rest:
    """Take no job for so long."""

    seconds: float


class Turns(Protocol):
    """Whoever knows whose turn it is."""

    async def whose(self, ticket: Ticket) -> Turn | None:
        """The turn, None where nobody says."""
        ...


class AskedTurns:
    """Asks the schedulers."""

    def __init__(self, client: PlacementClient) -> None:
        self._client = client
        self._said = ""

    async def whose(self, ticket: Ticket) -> Turn | None:
        """The turn, None where no scheduler answers in time."""
        try:
            turn = await self._client.next_job(ticket)
        except AdaptiveGenError as exc:
            if exc.code != self._said:  # said once: without schedulers the queue's order holds
                get_logger().warning("turn_not_told", code=exc.code, error=exc.message)
            self._said = exc.code
            return None
        self._said = ""
        return turn


class InOrder:
    """The queue's own order."""

    async def whose(self, ticket: Ticket) -> Turn | None:
        """Nobody says."""
        return None


@dataclass(slots=True)
class OutOfOrder:
    """Stands for the message of a job that was begun before its message came. Where that comes to the same worker while
    it works on the job (`come`) it is settled with it, else by whoever it comes to."""

    message: JobMessage
    headers: Mapping[str, str]
    delivered: int = field(default=1)
    come: Delivery | None = None

    @property
    def data(self) -> bytes:
        """The message, as the queue holds it."""
        return self.message.encode()

    async def ack(self) -> None:
        """Where it has not come: the job has its outcome, which its message will find."""
        if self.come is not None:
            await self.come.ack()

    async def in_progress(self) -> None:
        """Where it has not come: the record's lease says who holds the job."""
        if self.come is not None:
            await self.come.in_progress()

    async def nak(self, delay_s: float) -> None:
        """Where it has not come: it does so by itself."""
        if self.come is not None:
            await self.come.nak(delay_s)

    async def term(self, reason: str) -> None:
        """As `ack`."""
        if self.come is not None:
            await self.come.term(reason)
