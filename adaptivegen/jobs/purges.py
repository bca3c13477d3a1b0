"""What caches are to let go of: told at once over the broker, and kept as dated names in the object store.

    ag.cache.purge                     Purge: clips by digest, and the videos they belong to; a hint
    purged/<yyyy-mm-dd>/<sha256>       the same, for who did not hear; kept for `KEPT_DAYS`

A cache is told by digest, because that is what it knows of a clip; to let go of a clip that somebody else still needs
costs one fetch. Nothing rests on the hint: whoever keeps clips also looks into the names (`follow_purges`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from adaptivegen.batches import read_all
from adaptivegen.blob.base import BlobStore
from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.telemetry import carry, get_logger
from adaptivegen.untrusted import parsed

SUBJECT = "ag.cache.purge"
PREFIX = "purged/"
KEPT_DAYS = 30
LOOK_EVERY_S = 60.0
LISTEN_AGAIN_S = 2.0
BUFFER = 1024
MAX_ITEMS = 4096  # in one message
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Purge(BaseModel):
    """One hint. videos: ids, all of `tenant`; deleted: they are gone, not only to be fetched anew; freed_bytes: of the
    tenant's, that are gone with them."""

    model_config = ConfigDict(frozen=True)

    tenant: Annotated[str, Field(max_length=63)]
    videos: Annotated[tuple[str, ...], Field(max_length=MAX_ITEMS)] = ()
    sha256: Annotated[tuple[Sha256, ...], Field(max_length=MAX_ITEMS)] = ()
    deleted: bool = False
    freed_bytes: Annotated[int, Field(ge=0)] = 0

    def encode(self) -> bytes:
        """JSON for the wire."""
        return self.model_dump_json().encode()


def decode_purge(data: bytes) -> Purge:
    """Parse a hint; raises InvalidRequest."""
    return parsed(Purge, data, name="purge")


async def tell(bus: Bus, purge: Purge) -> None:
    """Publish a hint, best effort."""
    try:
        await bus.publish(SUBJECT, purge.encode(), headers=carry())
    except AdaptiveGenError as exc:
        get_logger().warning("purge_not_told", tenant=purge.tenant, error=exc.message)


async def note(blob: BlobStore, shas: Iterable[str], *, now_ns: int) -> None:
    """Keep for caches that do not hear it now that these clips are to go; raises a storage error."""
    day = _day(now_ns)
    await read_all([f"{PREFIX}{day}/{sha256}" for sha256 in shas], lambda key: blob.put(key, b""))


async def forget_old(blob: BlobStore, *, now_ns: int) -> None:
    """Remove the names of days that nobody looks into any more; raises a storage error."""
    first = _day(now_ns) - timedelta(days=KEPT_DAYS + 1)
    for days in range(7):  # also where nobody did for a while
        old = [meta.key async for meta in blob.list(f"{PREFIX}{first - timedelta(days=days)}/")]
        await read_all(old, blob.delete)


def _day(now_ns: int) -> date:
    return datetime.fromtimestamp(now_ns // 10**9, tz=UTC).date()


async def listen(bus: Bus, heard: Callable[[Purge], Awaitable[None]], *, clock: Clock) -> None:
    """Tell `heard` of each hint, until cancelled; subscribes again for as long as the broker is away."""
    while True:
        try:
            subscription = await bus.subscribe(SUBJECT, buffer=BUFFER)
            try:
                async for message in subscription:
                    try:
                        await heard(decode_purge(message.data))
                    except AdaptiveGenError as exc:  # those who keep clips look again anyway
                        get_logger().warning("purge_not_done", code=exc.code, error=exc.message)
            finally:
                await subscription.close()
        except AdaptiveGenError as exc:
            get_logger().warning("purges_not_heard", code=exc.code, error=exc.message)
        await clock.sleep(LISTEN_AGAIN_S)


class PurgeNames:
    """Looks into the names for one who keeps clips. drop: lets go of clips by digest, of those it has; drop_all: of all
    of them; `path`: a file of its own that says up to which day it has looked."""

    def __init__(
        self,
        blob: BlobStore,
        *,
        path: Path,
        clock: Clock,
        drop: Callable[[Collection[str]], Awaitable[None]],
        drop_all: Callable[[], Awaitable[None]],
    ) -> None:
        self._blob = blob
        self._path = path
        self._clock = clock
        self._drop = drop
        self._drop_all = drop_all
        self._seen: dict[str, int] = {}  # when each name was written last, of the days looked into

    async def run(self) -> None:
        """Look every minute, until cancelled; also at once. What cannot be looked into now is looked into later."""
        while True:
            try:
                await self.look()
            except AdaptiveGenError as exc:
                get_logger().info("purges_not_read", code=exc.code, error=exc.message)
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Let go of what was purged since the day of the last look, and a day before that: clocks differ. After longer
        than names are kept, of everything. Raises a storage error."""
        today, last = _day(self._clock.now_ns()), self._last()
        unknown = last is None or today - last >= timedelta(days=KEPT_DAYS)
        if last is None or unknown:
            last = today
        found: dict[str, int] = {}
        for days in range((today - last).days + 3):
            folder = f"{PREFIX}{last + timedelta(days=days - 1)}/"
            async for meta in self._blob.list(folder):
                found[meta.key] = meta.last_modified_ns
        new = {key.rpartition("/")[2] for key, at_ns in found.items() if self._seen.get(key) != at_ns}
        if unknown:
            await self._drop_all()
        elif new:
            await self._drop(new)
        self._seen = found
        if self._last() != today:
            self._remember(today)

    def _last(self) -> date | None:
        """The day of the last look; None where there was none, or it is not known."""
        try:
            return date.fromisoformat(self._path.read_text(encoding="ascii").strip())
        except (OSError, ValueError):
            return None

    def _remember(self, day: date) -> None:
        try:
            self._path.write_text(day.isoformat(), encoding="ascii")
        except OSError as exc:  # then more is let go of at the next start
            get_logger().warning("purges_not_remembered", error=str(exc))
