"""The audit log: every change that operators order, who ordered it and what became of it.

One object for each, `audit/<time>-<scheduler>-<number>`, written before the change is carried out: a change that cannot
be noted is not made. Afterwards the same object says how it ended; one that still says `ordered` is under way, or its
scheduler died.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from adaptivegen.batches import read_all
from adaptivegen.blob.base import BlobStore
from adaptivegen.errors import AdaptiveGenError, InvalidRequest
from adaptivegen.telemetry import get_logger
from adaptivegen.untrusted import parsed
from scheduler.steady import SteadyTime

PREFIX = "audit/"
MAX_TEXT_CHARS = 500
MAX_DETAILS = 64
_NAME = re.compile(r"[0-9]{20}-[a-z0-9_-]+-[0-9]{6}")
Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
T = TypeVar("T")


class AuditEntry(BaseModel):
    """One change. at_ns: wall nanoseconds; outcome: `ordered`, `done`, or why it failed."""

    model_config = ConfigDict(frozen=True)

    at_ns: Annotated[int, Field(ge=0)]
    scheduler: Text
    by: Text
    action: Text
    target: Text
    details: Annotated[dict[Text, Text], Field(max_length=MAX_DETAILS)] = {}
    outcome: Text = "ordered"

    def encode(self) -> bytes:
        """JSON as stored."""
        return self.model_dump_json().encode()


class Audit:
    """Writes and reads the log."""

    def __init__(self, blob: BlobStore, *, node_id: str, time: SteadyTime) -> None:
        self._blob = blob
        self._node_id = node_id
        self._time = time
        self._numbers = itertools.count()

    async def carry_out(
        self, action: str, target: str, act: Callable[[], Awaitable[T]], *, by: str, details: Mapping[str, object]
    ) -> T:
        """Note the change, make it, and note how that ended. Raises what `act` raises, and a storage error before."""
        entry = AuditEntry(
            at_ns=self._time.now_ns(),
            scheduler=self._node_id,
            by=by[:MAX_TEXT_CHARS],
            action=action,
            target=target[:MAX_TEXT_CHARS],
            details={name[:80]: str(value)[:MAX_TEXT_CHARS] for name, value in list(details.items())[:MAX_DETAILS]},
        )
        key = f"{PREFIX}{entry.at_ns:020d}-{self._node_id}-{next(self._numbers) % 1_000_000:06d}"
        await self._blob.put(key, entry.encode())
        outcome = "cut off"
        try:
            done = await act()
            outcome = "done"
        except AdaptiveGenError as exc:
            outcome = f"{exc.code}: {exc.message}"[:MAX_TEXT_CHARS]
            raise
        finally:
            await self._close(key, entry.model_copy(update={"outcome": outcome}))
        return done

    async def _close(self, key: str, entry: AuditEntry) -> None:
        get_logger().info("ordered", **entry.model_dump())
        try:
            await self._blob.put(key, entry.encode())
        except AdaptiveGenError as exc:
            get_logger().warning("audit_not_closed", key=key, error=exc.message)

    async def entries(self, limit: int) -> list[AuditEntry]:
        """The last changes, newest first; raises a storage error. One that cannot be read says so."""
        names = [meta.key.removeprefix(PREFIX) async for meta in self._blob.list(PREFIX)]
        kept = sorted((name for name in names if _NAME.fullmatch(name)), reverse=True)[:limit]
        return await read_all(kept, self._entry)

    async def _entry(self, name: str) -> AuditEntry:
        try:
            return parsed(AuditEntry, await self._blob.get(PREFIX + name), name="audit")
        except InvalidRequest as exc:
            at_ns = int(name.partition("-")[0])
            outcome = f"unreadable: {exc.message}"[:MAX_TEXT_CHARS]
            return AuditEntry(at_ns=at_ns, scheduler="", by="", action="", target="", outcome=outcome)
