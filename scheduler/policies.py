"""The policy in force, and every change of it, who made it and why.

The changes are numbered objects, `policy/<number>`, each written if absent: the newest is in force, all are kept, and
of two schedulers that change at once one loses. The broker's policy bucket holds a copy of the newest, which all
schedulers read every few seconds; a broker that lost it is given it again. A change holds all that differs from the
settings that schedulers were started with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adaptivegen.blob.base import BlobStore
from adaptivegen.bus.base import Bus, Entry, KeyValue
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, BrokerUnavailable, Conflict, InvalidRequest
from adaptivegen.heartbeat import POLICY_BUCKET
from adaptivegen.telemetry import get_logger
from scheduler.decide.policy import Policy
from scheduler.decide.view import View
from scheduler.steady import SteadyTime

KEY = "weights"  # of the copy, in the policy bucket
PREFIX = "policy/"
READ_EVERY_S = 2.0
MAX_TEXT_CHARS = 500
MAX_VALUES = 64


class PolicyChange(BaseModel):
    """One change. values: all that then differed from the settings, by name."""

    model_config = ConfigDict(frozen=True)

    number: Annotated[int, Field(ge=1)]
    values: Annotated[dict[str, float], Field(max_length=MAX_VALUES)]
    by: Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
    reason: Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
    at_ns: Annotated[int, Field(ge=0)]

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
        """Take over the newest change. Raises BrokerUnavailable, a storage error, InvalidRequest for a bad change."""
        if not self._bus.connected:
            raise BrokerUnavailable("the broker cannot be reached; the last policy stands")
        bucket = await self._bucket()
        copied = _copied(await bucket.get(KEY))
        found = copied or await self._newest_stored()
        if found is not None and (self.newest is None or found.number > self.newest.number):
            self._adopt(found)
        if self.newest is not None and (copied is None or copied.number < self.newest.number):
            await bucket.put(KEY, self.newest.encode())

    async def change(self, values: Mapping[str, float], unset: Sequence[str], *, by: str, reason: str) -> PolicyChange:
        """Set values and go back to the configured ones for those `unset`.

        Raises InvalidRequest naming what is unknown or out of range, Conflict when another change came first, a storage
        error. Without the broker the change is kept and in force here; the others hear of it when the broker is back.
        """
        if len(reason) > MAX_TEXT_CHARS:
            raise InvalidRequest.field("reason", f"{len(reason)} characters", f"at most {MAX_TEXT_CHARS}")
        before = await self._newest_stored()
        kept = dict(before.values) if before else {}
        for name in unset:
            if kept.pop(name, None) is None and name not in self.configured.values():
                raise InvalidRequest.field("unset", name[:80], ", ".join(self.configured.values()))
        after = {**kept, **values}
        self.configured.but(after)
        made = PolicyChange(
            number=before.number + 1 if before else 1,
            values=after,
            by=by[:MAX_TEXT_CHARS],
            reason=reason,
            at_ns=self._time.now_ns(),
        )
        if not await self._blob.put_if_absent(_object_key(made.number), made.encode()):
            raise Conflict(f"policy change {made.number} was made by another at this moment; look at it and ask again")
        self._adopt(made)
        get_logger().info("policy_changed", **made.model_dump())
        try:
            await (await self._bucket()).put(KEY, made.encode())
        except BrokerUnavailable:
            get_logger().warning("policy_not_told", number=made.number)
        return made

    async def history(self, limit: int) -> list[PolicyChange]:
        """The last changes, newest first; raises a storage error."""
        numbers = sorted(await self._numbers(), reverse=True)[:limit]
        return [_decoded(await self._blob.get(_object_key(number))) for number in numbers]

    def _adopt(self, change: PolicyChange) -> None:
        self._view.policy = self.configured.but(change.values)
        self.newest = change

    async def _newest_stored(self) -> PolicyChange | None:
        numbers = await self._numbers()
        return _decoded(await self._blob.get(_object_key(max(numbers)))) if numbers else None

    async def _numbers(self) -> list[int]:
        names = [meta.key.removeprefix(PREFIX) async for meta in self._blob.list(PREFIX)]
        return [int(name) for name in names if name.isdecimal()]

    async def _bucket(self) -> KeyValue:
        return await self._bus.kv(POLICY_BUCKET)


def _copied(entry: Entry | None) -> PolicyChange | None:
    """The change that the broker's copy holds; None where there is none, or it is damaged."""
    try:
        return _decoded(entry.value) if entry is not None else None
    except InvalidRequest as exc:
        get_logger().warning("policy_copy_damaged", error=exc.message)
        return None


def _object_key(number: int) -> str:
    return f"{PREFIX}{number:012d}"


def _decoded(data: bytes) -> PolicyChange:
    try:
        return PolicyChange.model_validate_json(data)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "policy"
        raise InvalidRequest.field(f"policy.{field}", first["input"], first["msg"]) from exc
