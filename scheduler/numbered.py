"""Something that operators change for all schedulers: every change of it, who made it and why; the newest is in force.

The changes are numbered objects, `<prefix><number>`, each written if absent: all are kept, and of two schedulers that
change at once one loses. The broker's policy bucket holds a copy of the newest, which all schedulers read every few
seconds; the store itself they read at the start and every minute, and a broker whose copy is missing, damaged or behind
is given it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from adaptivegen.batches import read_all
from adaptivegen.blob.base import BlobStore
from adaptivegen.bus.base import Bus, Entry, KeyValue
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, BrokerUnavailable, Conflict, InvalidRequest
from adaptivegen.heartbeat import POLICY_BUCKET
from adaptivegen.telemetry import get_logger
from adaptivegen.untrusted import parsed

READ_EVERY_S = 2.0  # the broker's copy
STORE_EVERY_S = 60.0  # the store: listing one may cost money
MAX_TEXT_CHARS = 500
_NUMBER = re.compile(r"[0-9]{12}")


class Change(BaseModel):
    """One change. Its kinds add what it holds, with defaults: of one that cannot be read only the number is known."""

    model_config = ConfigDict(frozen=True)

    number: Annotated[int, Field(ge=1)]
    by: Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
    reason: Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
    at_ns: Annotated[int, Field(ge=0)]

    @property
    def readable(self) -> bool:
        """Whether this is a change, and not what stands for one that cannot be read."""
        return self.at_ns > 0

    def encode(self) -> bytes:
        """JSON as stored."""
        return self.model_dump_json().encode()


C = TypeVar("C", bound=Change)


class Numbered(Generic[C]):
    """The changes of one thing. `newest` is the one in force, None where there was none.

    follow: takes a change over; raises InvalidRequest for one that cannot be followed here.
    """

    def __init__(
        self,
        kind: type[C],
        name: str,
        *,
        prefix: str,
        key: str,
        bus: Bus,
        blob: BlobStore,
        clock: Clock,
        follow: Callable[[C], None],
    ) -> None:
        self._kind = kind
        self._name = name
        self._prefix = prefix
        self._key = key
        self._bus = bus
        self._blob = blob
        self._clock = clock
        self._take_over = follow
        self.newest: C | None = None
        self._looked_at_s: float | None = None  # into the store
        self._seen: tuple[int, int] | None = None  # the broker's copy as it was read last: its revision and number

    async def run(self) -> None:
        """Read the newest every few seconds, until cancelled; while it cannot be read the last one stands."""
        said = ""
        while True:
            try:
                await self.read()
                said = ""
            except AdaptiveGenError as exc:
                if exc.message != said:
                    get_logger().warning(f"{self._name}_not_read", error=exc.message)
                said = exc.message
            await self._clock.sleep(READ_EVERY_S)

    async def read(self) -> None:
        """Take over the newest change: as the broker has it, and now and then as the store has it.

        Raises BrokerUnavailable, a storage error, InvalidRequest for a change that cannot be followed here.
        """
        now_s = self._clock.monotonic_s()
        if self._looked_at_s is None or now_s - self._looked_at_s >= STORE_EVERY_S:
            stored, self._looked_at_s = await self._newest_of(await self._numbers()), now_s
            self._follow(stored)
        if not self._bus.connected:
            raise BrokerUnavailable(f"the broker cannot be reached; the last {self._name} stands")
        bucket = await self._bucket()
        entry = await bucket.get(self._key)
        known = self.newest.number if self.newest is not None else 0
        if entry is not None and self._seen == (entry.revision, known):
            return
        copied = self._copied(entry)
        self._follow(copied)
        if self.newest is not None and (copied is None or copied.number < self.newest.number):
            await bucket.put(self._key, self.newest.encode())
        elif entry is not None and copied is not None:
            self._seen = entry.revision, copied.number

    async def append(self, make: Callable[[C | None, int], C]) -> C:
        """Make the next change from the one in force and its number.

        Raises what `make` raises, Conflict when another change came first, a storage error. Without the broker the
        change is kept and in force here; the others hear of it when the broker is back, or look into the store.
        """
        numbers, known = await self._numbers(), self.newest
        stored = await self._newest_of(numbers)
        before = max((change for change in (stored, known) if change), key=lambda change: change.number, default=None)
        made = make(before, max([0, *numbers, known.number if known else 0]) + 1)
        if not await self._blob.put_if_absent(self._object_key(made.number), made.encode()):
            number = made.number
            raise Conflict(f"{self._name} change {number} was made by another at this moment; look at it and ask again")
        self._follow(made)
        get_logger().info(f"{self._name}_changed", number=made.number, by=made.by, reason=made.reason)
        try:
            await (await self._bucket()).put(self._key, made.encode())
        except BrokerUnavailable:
            get_logger().warning(f"{self._name}_not_told", number=made.number)
        return made

    async def history(self, limit: int) -> list[C]:
        """The last changes, newest first; raises a storage error."""
        return await read_all(sorted(await self._numbers(), reverse=True)[:limit], self._stored)

    def _follow(self, change: C | None) -> None:
        if change is not None and (self.newest is None or change.number > self.newest.number):
            self._take_over(change)
            self.newest = change

    async def _newest_of(self, numbers: Sequence[int]) -> C | None:
        """The newest of these that can be read."""
        for number in sorted(numbers, reverse=True):
            change = await self._stored(number)
            if change.readable:
                return change
        return None

    async def _stored(self, number: int) -> C:
        """One change, or one that says that it cannot be read."""
        try:
            change = parsed(self._kind, await self._blob.get(self._object_key(number)), name=self._name)
        except InvalidRequest as exc:
            reason = f"unreadable: {exc.message}"[:MAX_TEXT_CHARS]
            return self._kind(number=number, by="", reason=reason, at_ns=0)
        return change.model_copy(update={"number": number})

    async def _numbers(self) -> list[int]:
        names = [meta.key.removeprefix(self._prefix) async for meta in self._blob.list(self._prefix)]
        return [int(name) for name in names if _NUMBER.fullmatch(name)]

    async def _bucket(self) -> KeyValue:
        return await self._bus.kv(POLICY_BUCKET)

    def _copied(self, entry: Entry | None) -> C | None:
        """The change that the broker's copy holds; None where there is none, or it is damaged."""
        try:
            return parsed(self._kind, entry.value, name=self._name) if entry is not None else None
        except InvalidRequest as exc:
            get_logger().warning(f"{self._name}_copy_damaged", error=exc.message)
            return None

    def _object_key(self, number: int) -> str:
        return f"{self._prefix}{number:012d}"


def check_reason(reason: str) -> str:
    """Raise InvalidRequest for a reason that is too long to keep."""
    if len(reason) > MAX_TEXT_CHARS:
        raise InvalidRequest.field("reason", f"{len(reason)} characters", f"at most {MAX_TEXT_CHARS}")
    return reason
