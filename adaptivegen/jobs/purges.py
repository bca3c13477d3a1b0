"""What caches are to let go of: told at once over the broker, and kept as dated names in the object store.

    ag.cache.purge                            Purge: clips by digest, and the videos they belong to; a hint
    purged/<yyyy-mm-dd>/t<time>-<sha256>      the same, for who did not hear; kept for `KEPT_DAYS`

A cache is told by digest, because that is what it knows of a clip; to let go of a clip that somebody else still needs
costs one fetch. Nothing rests on the hint: whoever keeps clips also looks into the names (`PurgeNames`). <time>: the
millisecond of the day, so that names sort by when they were written; earlier versions wrote the digest alone, and `t`
sorts behind those.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from adaptivegen.batches import AT_ONCE, read_all
from adaptivegen.blob.base import BlobStore
from adaptivegen.bus.base import Bus, Message
from adaptivegen.bus.hearing import hear
from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.telemetry import carry, get_logger
from adaptivegen.untrusted import parsed

SUBJECT = "ag.cache.purge"
PREFIX = "purged/"
KEPT_DAYS = 30
LOOK_EVERY_S = 60.0
NEAR_S = 600.0  # by which the clocks of who writes names and who reads them may differ
FAR_EVERY_S = 3600.0
GROUP_DIGITS = 4  # of a name's time: names of ten seconds are remembered together
BATCH = 1024  # names
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


async def note(blob: BlobStore, shas: Iterable[str], *, clock: Clock) -> None:
    """Keep for caches that do not hear it now that these clips are to go; raises a storage error."""
    left = sorted(shas)
    while left:  # a few at a time: a name must not be there long after its time
        now_ns = clock.now_ns()
        some, left = left[:AT_ONCE], left[AT_ONCE:]
        await read_all([_moment(now_ns) + f"-{sha256}" for sha256 in some], lambda key: blob.put(key, b""))


async def forget_old(blob: BlobStore, *, now_ns: int) -> None:
    """Remove the names of days that nobody looks into any more; raises a storage error."""
    first = _day(now_ns) - timedelta(days=KEPT_DAYS + 1)
    for days in range(7):  # also where nobody did for a while
        async for old in _batches(blob, _folder(first - timedelta(days=days))):
            await read_all(list(old), blob.delete)


def _day(now_ns: int) -> date:
    return datetime.fromtimestamp(now_ns // 10**9, tz=UTC).date()


def _folder(day: date) -> str:
    return f"{PREFIX}{day}/"


def _moment(now_ns: int) -> str:
    """What the names written at a moment begin with."""
    return f"{_folder(_day(now_ns))}t{now_ns // 10**6 % 86_400_000:08d}"


def _group(name: str) -> str:
    """The names that are remembered with this one: its folder's of the same ten seconds, or all without a time."""
    folder, _, last = name.rpartition("/")
    time, dash, _ = last.partition("-")
    return f"{folder}/{time[:-GROUP_DIGITS]}" if dash else folder


async def _batches(blob: BlobStore, folder: str, *, after: str = "") -> AsyncIterator[dict[str, int]]:
    """Names of a folder and when they were written by the store's clock, so many at a time."""
    batch: dict[str, int] = {}
    async for meta in blob.list(folder, after=after):
        batch[meta.key] = meta.last_modified_ns
        if len(batch) == BATCH:
            yield batch
            batch = {}
    if batch:
        yield batch


class _Sums:
    """What was seen of groups of names: two that were the same have one sum (of 64 bits, the hash being keyed)."""

    def __init__(self) -> None:
        self.by_group: dict[str, int] = {}

    def add(self, name: str, stamp_ns: int) -> None:
        group = _group(name)
        self.by_group[group] = (self.by_group.get(group, 0) + hash(f"{name} {stamp_ns}")) % 2**64


async def listen(bus: Bus, heard: Callable[[Purge], Awaitable[None]], *, clock: Clock) -> None:
    """Tell `heard` of each hint, until cancelled; what it cannot do now those who keep clips do when they look."""

    async def take(message: Message) -> None:
        await heard(decode_purge(message.data))

    await hear(bus, SUBJECT, take, buffer=BUFFER, clock=clock)


class PurgeNames:
    """Looks into the names for one who keeps clips. drop: lets go of clips by digest, of those it has; drop_all: of all
    of them; `path`: a file of its own that says up to which day it has looked.

    A look reads the names that were written since the last, and `NEAR_S` before that, since the clocks of those who
    write them differ. Every `FAR_EVERY_S` all of yesterday, today and tomorrow are read, for clocks that differ more.
    What it acted on it knows by no clock, since one may be set back: it remembers a sum of all names of the same ten
    seconds, and where that has changed it acts on all of these again, which costs a fetch of some clips.
    """

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
        self._looked_ns = 0  # when it looked last, by this node's clock
        self._far_at_s: float | None = None
        self._acted: dict[str, int] = {}  # sums of the groups whose names were, of two or three days

    async def run(self) -> None:
        """Look every minute, until cancelled; also at once. What cannot be looked into now is looked into later."""
        while True:
            try:
                await self.look()
            except AdaptiveGenError as exc:
                get_logger().info("purges_not_read", code=exc.code, error=exc.message)
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Let go of what was purged since the last look; at the start since the day before the one it looked last, and
        after longer than names are kept of everything. Raises a storage error."""
        now_ns, now_s = self._clock.now_ns(), self._clock.monotonic_s()
        if self._far_at_s is None or now_s - self._far_at_s >= FAR_EVERY_S:
            await self._look_far(_day(now_ns))
            self._far_at_s = now_s
        else:
            since = _moment(min(self._looked_ns, now_ns) - round(NEAR_S * 1e9))[:-GROUP_DIGITS]
            first, last = date.fromisoformat(since.split("/")[1]), _day(now_ns + round(NEAR_S * 1e9))
            for day in _days(first, last):
                await self._act(_folder(day), after=since if day == first else "")
        self._looked_ns = now_ns

    async def _look_far(self, today: date) -> None:
        """All of the days in question."""
        last = self._last()
        unknown = last is None or today - last >= timedelta(days=KEPT_DAYS)
        if unknown:
            await self._drop_all()
        begin = today if last is None or unknown else min(last, today)
        for day in _days(begin - timedelta(days=1), today + timedelta(days=1)):
            await self._act(_folder(day), drop=not unknown)
        oldest = _folder(today - timedelta(days=1))
        self._acted = {group: seen for group, seen in self._acted.items() if group + "/" >= oldest}
        if last != today:
            self._remember(today)

    async def _act(self, folder: str, *, after: str = "", drop: bool = True) -> None:
        """Let go of what a folder names and was not acted on. Listed once more where there is such, since names come in
        no order, and all of them might not fit into memory."""
        seen = _Sums()
        async for batch in _batches(self._blob, folder, after=after):
            for name, stamp_ns in batch.items():
                seen.add(name, stamp_ns)
        news = {group for group, of_group in seen.by_group.items() if self._acted.get(group) != of_group}
        if news and drop:
            seen = _Sums()  # of what is really acted on
            async for batch in _batches(self._blob, folder, after=after):
                new = [name for name in batch if _group(name) in news]
                if new:
                    await self._drop({name.rpartition("/")[2].rpartition("-")[2] for name in new})
                for name in new:
                    seen.add(name, batch[name])
        self._acted |= {group: of_group for group, of_group in seen.by_group.items() if group in news}

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


def _days(first: date, last: date) -> list[date]:
    """Both, and those between."""
    return [first + timedelta(days=days) for days in range((last - first).days + 1)]
