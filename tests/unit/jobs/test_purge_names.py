"""Names of purged clips: what a look reads, what it acts on, and what it remembers."""

import hashlib
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from adaptivegen.blob.base import ObjectMeta
from adaptivegen.blob.store import open_store
from adaptivegen.clock import ManualClock
from adaptivegen.errors import StorageFailure
from adaptivegen.jobs import purges
from adaptivegen.jobs.purges import FAR_EVERY_S, KEPT_DAYS, LOOK_EVERY_S, NEAR_S, PurgeNames, forget_old, note
from tests.stamps import Stamps

DAY_S = 86400.0


def sha(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


class Made:
    """Names in a store, and one who looks into them. `dropped`: in order; `listed`: objects that looks have read."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.blob = open_store("memory://")
        self.path = folder / "looked"
        self.dropped: list[str] = []
        self.listed = 0
        self.all_dropped = 0
        self.away = False
        self._list = self.blob.list
        self.blob.list = self.list  # type: ignore[method-assign]
        self.names = self.life()

    def life(self) -> PurgeNames:
        return PurgeNames(self.blob, path=self.path, clock=self.clock, drop=self.drop, drop_all=self.drop_all)

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectMeta]:
        if self.away:
            raise StorageFailure("away")
        async for meta in self._list(prefix, after=after):
            self.listed += 1
            yield meta

    async def drop(self, shas: Collection[str]) -> None:
        self.dropped += sorted(shas)

    async def drop_all(self) -> None:
        self.all_dropped += 1

    async def note(self, *numbers: int, off_s: float = 0.0) -> None:
        """By a node whose clock is off."""
        clock = ManualClock(start_ns=self.clock.now_ns() + round(off_s * 1e9))
        await note(self.blob, [sha(number) for number in numbers], clock=clock)

    async def minutes(self, count: int) -> None:
        for _ in range(count):
            await self.clock.advance(LOOK_EVERY_S)
            await self.names.look()


@pytest.fixture
async def made(tmp_path: Path) -> Made:
    """Midnight is ten minutes ago."""
    found = Made(tmp_path)
    to_midnight_s = DAY_S - found.clock.now_ns() / 1e9 % DAY_S
    await found.clock.advance(to_midnight_s + NEAR_S)
    return found


async def test_a_look_reads_what_was_written_since_the_last_one_and_a_little_before(made: Made) -> None:
    await made.note(*range(500))
    await made.names.look()
    await made.minutes(30)
    made.listed = 0
    await made.note(1000, 1001)
    await made.minutes(1)
    assert made.listed == 2 * 2  # and once more, to let go of them
    assert sorted(made.dropped) == sorted([sha(1000), sha(1001)])
    await made.minutes(25)  # until they are behind
    assert made.listed < 2 * 2 + 2 * 25
    made.listed = 0
    await made.minutes(2)
    assert (made.listed, len(made.dropped)) == (0, 2)


async def test_every_name_is_acted_on_once_over_hours_and_midnights(made: Made) -> None:
    await made.names.look()
    noted = []
    for number in range(0, 60 * 26, 7):
        await made.note(number)
        noted.append(sha(number))
        await made.minutes(7)
    assert made.dropped == noted


@pytest.mark.parametrize("off_s", [-NEAR_S + 1, NEAR_S - 1])
async def test_a_name_of_a_clock_that_is_off_by_minutes_is_seen_by_the_next_look(made: Made, off_s: float) -> None:
    await made.names.look()
    for start in (0, 24 * 60 - 15):  # around midnights, too
        await made.minutes(start)
        for number in range(start, start + 20):
            await made.note(number, off_s=off_s)
            await made.minutes(1)
            assert made.dropped[-1] == sha(number)


@pytest.mark.parametrize("off_s", [-0.9 * DAY_S, 0.9 * DAY_S])
async def test_a_name_of_a_clock_that_is_off_by_hours_is_seen_within_one(made: Made, off_s: float) -> None:
    await made.names.look()
    await made.minutes(5)
    await made.note(1, off_s=off_s)
    await made.minutes(1)
    await made.note(2)
    await made.minutes(round(FAR_EVERY_S / LOOK_EVERY_S))
    assert sorted(made.dropped) == sorted([sha(1), sha(2)])
    await made.minutes(3 * round(FAR_EVERY_S / LOOK_EVERY_S))
    assert len(made.dropped) == 2


async def test_what_was_written_while_the_store_was_away_is_seen_when_it_is_back(made: Made) -> None:
    await made.names.look()
    await made.minutes(1)
    await made.note(1)
    made.away = True
    for _ in range(40):
        await made.clock.advance(LOOK_EVERY_S)
        with pytest.raises(StorageFailure):
            await made.names.look()
    made.away = False
    await made.minutes(1)
    assert made.dropped == [sha(1)]


async def test_names_that_come_in_many_batches_are_remembered_together_and_all_are_acted_on(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purges, "BATCH", 4)
    await made.names.look()
    await made.minutes(1)
    await made.note(*range(100))
    await made.minutes(2)
    assert sorted(made.dropped) == sorted(sha(number) for number in range(100))
    assert len(made.names._acted) == 1
    for day in range(5):
        await made.note(1000 + day)
        await made.minutes(24 * 60)
    assert len(made.names._acted) <= 3


@pytest.mark.parametrize("back_s", [3600.0, 40 * DAY_S])
async def test_names_that_are_written_after_the_stores_clock_was_set_back_are_seen_by_the_next_look(
    made: Made, back_s: float
) -> None:
    stamps = Stamps(made.blob)
    await made.names.look()
    await made.note(1)
    await made.minutes(2 * round(FAR_EVERY_S / LOOK_EVERY_S))
    await made.note(2)
    await made.minutes(1)
    await stamps.passes(-back_s)  # what was there is stamped in the future now
    await made.minutes(2 * round(FAR_EVERY_S / LOOK_EVERY_S))
    made.dropped.clear()
    for number in range(10, 20):
        await made.note(number)
        await made.minutes(7)
        assert made.dropped == [sha(number)]
        made.dropped.clear()


async def test_a_name_beside_one_that_was_acted_on_is_seen(made: Made) -> None:
    await made.note(1)
    await made.names.look()  # the first: its clips are all gone
    await made.note(2)  # of the same moment
    await made.minutes(1)
    assert made.dropped == sorted([sha(1), sha(2)])
    await made.minutes(20)
    assert len(made.dropped) == 2


async def test_names_of_an_earlier_version_are_seen_by_the_next_life(made: Made) -> None:
    await made.names.look()
    day = (await anext(aiter_of(made))).split("/")[1]
    await made.blob.put(f"purged/{day}/{sha(7)}", b"")
    await made.life().look()
    assert sha(7) in made.dropped


async def aiter_of(made: Made) -> AsyncIterator[str]:
    await made.note(0)
    async for meta in made.blob.list("purged/"):
        yield meta.key


async def test_names_of_long_ago_are_removed_and_later_ones_stay(made: Made) -> None:
    await made.note(1)
    await made.clock.advance((KEPT_DAYS + 2) * DAY_S)
    await made.note(2)
    await forget_old(made.blob, now_ns=made.clock.now_ns())
    assert [meta.key.rpartition("-")[2] async for meta in made.blob.list("purged/")] == [sha(2)]
