"""The audit log: every change that operators order, who ordered it and what became of it.

One object for each, `audit/<year>-<month>/<time>-<scheduler>-<number>`, written before the change is carried out: a
change that cannot be noted is not made. Afterwards the same object says how it ended; of one that still says `ordered`
that is not known. Long lists of an order, of ids say, are whole in the object; what is told of it has their beginning,
their length and their digest.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from adaptivegen.batches import read_all
from adaptivegen.blob.base import BlobStore
from adaptivegen.errors import AdaptiveGenError, InvalidRequest, NotFound
from adaptivegen.telemetry import get_logger
from adaptivegen.untrusted import parsed
from scheduler.steady import SteadyTime

PREFIX = "audit/"
MAX_TEXT_CHARS = 500
MAX_DETAILS = 64
MAX_WHOLE_CHARS = 64 * 1024  # of one value; no order may be as long
MONTHS_BACK = 36  # that are listed at most
_NAME = re.compile(r"[0-9]{19}-[a-z0-9_-]+-[0-9]{6}")
Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
T = TypeVar("T")


class AuditEntry(BaseModel):
    """One change. at_ns: wall nanoseconds; outcome: `ordered`, `done`, or why it failed; whole: those of the details
    that are too long for them."""

    model_config = ConfigDict(frozen=True)

    at_ns: Annotated[int, Field(ge=0, lt=2**63)]
    scheduler: Text
    by: Text
    action: Text
    target: Text
    details: Annotated[dict[Text, Text], Field(max_length=MAX_DETAILS)] = {}
    outcome: Text = "ordered"
    whole: Annotated[dict[Text, Annotated[str, Field(max_length=MAX_WHOLE_CHARS)]], Field(max_length=MAX_DETAILS)] = {}

    def told(self) -> dict[str, Any]:
        """What logs and lists say of it."""
        return self.model_dump(exclude={"whole"})

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
        self,
        action: str,
        target: str,
        act: Callable[[], Awaitable[T]],
        *,
        by: str,
        details: Mapping[str, object],
        told: Callable[[T], str] = lambda done: "done",
    ) -> T:
        """Note the change, make it, and note how that ended; told: what was done.

        Raises what `act` raises, and a storage error before.
        """
        said = {name[:80]: _legal(str(value)) for name, value in list(details.items())[:MAX_DETAILS]}
        entry = AuditEntry(
            at_ns=self._time.now_ns(),
            scheduler=self._node_id,
            by=_legal(by)[:MAX_TEXT_CHARS],
            action=action,
            target=_legal(target)[:MAX_TEXT_CHARS],
            details={name: brief(text) for name, text in said.items()},
            whole={name: text[:MAX_WHOLE_CHARS] for name, text in said.items() if len(text) > MAX_TEXT_CHARS},
        )
        key = f"{_month(entry.at_ns)}{entry.at_ns:019d}-{self._node_id}-{next(self._numbers) % 1_000_000:06d}"
        await self._blob.put(key, entry.encode())
        outcome = "cut off"
        try:
            done = await act()
            outcome = told(done)[:MAX_TEXT_CHARS]
        except AdaptiveGenError as exc:
            outcome = f"{exc.code}: {exc.message}"[:MAX_TEXT_CHARS]
            raise
        except Exception as exc:
            outcome = f"internal: {type(exc).__name__}"
            raise
        finally:
            await self._close(key, entry.model_copy(update={"outcome": outcome}))
        return done

    async def _close(self, key: str, entry: AuditEntry) -> None:
        get_logger().info("ordered", **entry.told())
        try:
            await self._blob.put(key, entry.encode())
        except AdaptiveGenError as exc:
            get_logger().warning("audit_not_closed", key=key, error=exc.message)

    async def entries(self, limit: int) -> list[AuditEntry]:
        """The last changes, newest first; raises a storage error. One that cannot be read says so."""
        keys: list[str] = []
        at_ns = self._time.now_ns()
        for _ in range(MONTHS_BACK):
            month = _month(at_ns)
            found = [meta.key async for meta in self._blob.list(month)]
            keys += sorted((key for key in found if _NAME.fullmatch(key.removeprefix(month))), reverse=True)
            if len(keys) >= limit:
                break
            at_ns = _before(at_ns)
        read = await read_all(keys[:limit], self._entry)
        return [entry for entry in read if entry is not None]

    async def _entry(self, key: str) -> AuditEntry | None:
        """One entry; None for one that was removed meanwhile."""
        try:
            return parsed(AuditEntry, await self._blob.get(key), name="audit")
        except NotFound:
            return None
        except InvalidRequest as exc:
            at_ns = min(int(key.rpartition("/")[2].partition("-")[0]), 2**63 - 1)
            outcome = f"unreadable: {exc.message}"[:MAX_TEXT_CHARS]
            return AuditEntry(at_ns=at_ns, scheduler="", by="", action="", target="", outcome=outcome)


def _legal(text: str) -> str:
    """Names of a shell may have bytes that are no UTF-8, which an entry cannot hold."""
    return text.encode("utf-8", "replace").decode()


def brief(text: str) -> str:
    """A list of words within `MAX_TEXT_CHARS`: as it is, or as many as there is room for, how many there are, and the
    SHA-256 of the whole."""
    if len(text) <= MAX_TEXT_CHARS:
        return text
    words = text.split(" ")
    digest = hashlib.sha256(text.encode()).hexdigest()

    def note(shown: int) -> str:
        return f" ({shown} of {len(words)} shown; all {len(text)} characters have sha256 {digest})"

    shown, room = 0, MAX_TEXT_CHARS - len(note(len(words)))
    while room >= len(words[shown]) + 1:
        room -= len(words[shown]) + 1
        shown += 1
    return " ".join(words[:shown]) + note(shown)


def _month(at_ns: int) -> str:
    """The prefix of a month's entries."""
    return f"{PREFIX}{datetime.fromtimestamp(at_ns // 10**9, tz=UTC):%Y-%m}/"


def _before(at_ns: int) -> int:
    """A moment of the month before."""
    first = datetime.fromtimestamp(at_ns // 10**9, tz=UTC).replace(day=1, hour=0, minute=0, second=0)
    return int((first - timedelta(days=1)).timestamp()) * 10**9
