"""The policy in force, and every change of it, who made it and why.

The changes are numbered objects, `policy/<number>`, each written if absent: the newest is in force, all are kept, and
of two schedulers that change at once one loses. The broker's policy bucket holds a copy of the newest, which all
schedulers read every few seconds; the store itself they read at the start and every minute, and a broker whose copy is
missing, damaged or behind is given it again. A change holds all that differs from the settings that schedulers were
started with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from adaptivegen.batches import read_all
from adaptivegen.blob.base import BlobStore
from adaptivegen.bus.base import Bus, Entry, KeyValue
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, BrokerUnavailable, Conflict, InvalidRequest
from adaptivegen.heartbeat import POLICY_BUCKET
from adaptivegen.telemetry import get_logger
from adaptivegen.untrusted import parsed
from scheduler.decide.policy import Policy
from scheduler.decide.view import View
from scheduler.steady import SteadyTime

KEY = "weights"  # of the copy, in the policy bucket
PREFIX = "policy/"
READ_EVERY_S = 2.0  # the broker's copy
STORE_EVERY_S = 60.0  # the store: listing one may cost money
MAX_TEXT_CHARS = 500
MAX_VALUES = 64
_NUMBER = re.compile(r"[0-9]{12}")


class PolicyChange(BaseModel):
    """One change. values: all that then differed from the settings, by name."""

    model_config = ConfigDict(frozen=True)

    number: Annotated[int, Field(ge=1)]
    values: Annotated[dict[str, float], Field(max_length=MAX_VALUES)]
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


class Policies:
    """Keeps a view's policy true, and changes it. `newest` is the change in force, None where there was none."""

    def __init__(self, view: View, bus: Bus, blob: BlobStore, *, clock: Clock, time: SteadyTime) -> None:
        self._view = view
        self._bus = bus
        self._blob = blob
        self._clock = clock
        self._time = time
        self.configured = view.policy
        self.newest: PolicyChange | None = None
        self._looked_at_s: float | None = None  # into the store

    @property
    def in_force(self) -> Policy:
        """By what plans are weighed now."""
        return self._view.policy

    async def run(self) -> None:
        """Read the policy every few seconds, until cancelled; while it cannot be read the last one stands."""
        said = ""
        while True:
            try:
                await self.read()
                said = ""
            except AdaptiveGenError as exc:
                if exc.message != said:
                    get_logger().warning("policy_not_read", error=exc.message)
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
            raise BrokerUnavailable("the broker cannot be reached; the last policy stands")
        bucket = await self._bucket()
        copied = _copied(await bucket.get(KEY))
        self._follow(copied)
        if self.newest is not None and (copied is None or copied.number < self.newest.number):
            await bucket.put(KEY, self.newest.encode())

    async def change(self, values: Mapping[str, float], unset: Sequence[str], *, by: str, reason: str) -> PolicyChange:
        """Set values and go back to the configured ones for those `unset`.

        Raises InvalidRequest naming what is unknown or out of range, Conflict when another change came first, a storage
        error. Without the broker the change is kept and in force here; the others hear of it when the broker is back,
        or look into the store.
        """
        for name, given in (("values", len(values)), ("unset", len(unset))):
            if given > MAX_VALUES:
                raise InvalidRequest.field(name, f"{given} names", f"at most {MAX_VALUES}")
        for name in unset:
            if name in values:
                raise InvalidRequest.field("unset", name[:80], "names that are not set in the same change")
        if len(reason) > MAX_TEXT_CHARS:
            raise InvalidRequest.field("reason", f"{len(reason)} characters", f"at most {MAX_TEXT_CHARS}")
        numbers, known = await self._numbers(), self.newest
        stored = await self._newest_of(numbers)
        before = max((change for change in (stored, known) if change), key=lambda change: change.number, default=None)
        made = PolicyChange(
            number=max([0, *numbers, known.number if known else 0]) + 1,
            values=self._changed(before, values, unset),
            by=by[:MAX_TEXT_CHARS],
            reason=reason,
            at_ns=self._time.now_ns(),
        )
        if not await self._blob.put_if_absent(_object_key(made.number), made.encode()):
            raise Conflict(f"policy change {made.number} was made by another at this moment; look at it and ask again")
        self._follow(made)
        get_logger().info("policy_changed", **made.model_dump())
        try:
            await (await self._bucket()).put(KEY, made.encode())
        except BrokerUnavailable:
            get_logger().warning("policy_not_told", number=made.number)
        return made

    def _changed(
        self, before: PolicyChange | None, values: Mapping[str, float], unset: Sequence[str]
    ) -> dict[str, float]:
        """What differs from the settings after a change; raises InvalidRequest."""
        after, known = dict(before.values) if before else {}, self.configured.values()
        for name in unset:
            if after.pop(name, None) is None and name not in known:
                raise InvalidRequest.field("unset", name[:80], ", ".join(known))
        after.update(values)
        self.configured.but(after)
        return after

    async def history(self, limit: int) -> list[PolicyChange]:
        """The last changes, newest first; raises a storage error."""
        return await read_all(sorted(await self._numbers(), reverse=True)[:limit], self._stored)

    def _follow(self, change: PolicyChange | None) -> None:
        if change is not None and (self.newest is None or change.number > self.newest.number):
            self._view.policy = self.configured.but(change.values)
            self.newest = change

    async def _newest_of(self, numbers: Sequence[int]) -> PolicyChange | None:
        """The newest of these that can be read."""
        for number in sorted(numbers, reverse=True):
            change = await self._stored(number)
            if change.readable:
                return change
        return None

    async def _stored(self, number: int) -> PolicyChange:
        """One change, or one that says that it cannot be read."""
        try:
            change = parsed(PolicyChange, await self._blob.get(_object_key(number)), name="policy")
        except InvalidRequest as exc:
            return PolicyChange(number=number, values={}, by="", reason=f"unreadable: {exc.message}"[:500], at_ns=0)
        return change.model_copy(update={"number": number})

    async def _numbers(self) -> list[int]:
        names = [meta.key.removeprefix(PREFIX) async for meta in self._blob.list(PREFIX)]
        return [int(name) for name in names if _NUMBER.fullmatch(name)]

    async def _bucket(self) -> KeyValue:
        return await self._bus.kv(POLICY_BUCKET)


def _copied(entry: Entry | None) -> PolicyChange | None:
    """The change that the broker's copy holds; None where there is none, or it is damaged."""
    try:
        return parsed(PolicyChange, entry.value, name="policy") if entry is not None else None
    except InvalidRequest as exc:
        get_logger().warning("policy_copy_damaged", error=exc.message)
        return None


def _object_key(number: int) -> str:
    return f"{PREFIX}{number:012d}"
