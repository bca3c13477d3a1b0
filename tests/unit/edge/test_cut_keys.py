"""Idempotency keys while an edge is cut off: one key, one video, as far as this edge knows."""

import asyncio
from pathlib import Path

import pytest

from adaptivegen.errors import Conflict, StorageFailure, Unavailable
from tests.unit.edge.bench import edge
from tests.unit.edge.cutting import Failing, connect, drafted, handed_over, partition


@pytest.mark.parametrize("known", [True, False], ids=["known to be cut off", "not yet known"])
async def test_requests_of_one_key_that_come_together_while_cut_off_are_one_video(tmp_path: Path, known: bool) -> None:
    async with edge(tmp_path) as made:
        centre = Failing(made)
        centre.away = StorageFailure("away")
        if known:
            partition(made).reach.trip(centre.away)
        records = await asyncio.gather(*(made.create(seed=None) for _ in range(4)))
        assert len({record.id for record in records}) == 1
        assert len({record.seed for record in records}) == 1
        assert len(partition(made).spool) == 1


async def test_of_requests_of_one_key_with_two_bodies_that_come_together_one_is_refused(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        centre = Failing(made)
        centre.away = StorageFailure("away")
        answers = await asyncio.gather(made.create(seed=1), made.create(seed=2), return_exceptions=True)
        assert [type(answer) for answer in answers].count(Conflict) == 1
        assert len(partition(made).spool) == 1


async def test_a_key_whose_video_cannot_be_read_makes_no_second_one(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        centre = Failing(made)
        record = await made.create()
        centre.away = StorageFailure("away")
        for _ in range(3):  # also once it is known to be cut off
            with pytest.raises(Unavailable):
                await made.create()
        with pytest.raises(Conflict):
            await made.create(seed=9)
        assert len(partition(made).spool) == 0
        centre.away = None
        await connect(made)
        assert (await made.create()).id == record.id


async def test_a_video_handed_over_is_found_by_its_key_in_the_next_cut_or_not_made_again(tmp_path: Path) -> None:
    async with edge(tmp_path) as made:
        centre = Failing(made)
        centre.away = StorageFailure("away")
        record = await made.create()
        await drafted(made, record.id)
        centre.away = None
        await connect(made)
        await handed_over(made)
        assert (await made.create()).id == record.id
        centre.away = StorageFailure("away again")
        with pytest.raises(Unavailable):
            await made.create()


@pytest.mark.parametrize("accepted", ["at the centre", "into the spool"])
async def test_a_key_that_a_former_life_has_seen_makes_no_second_video_in_the_next_cut(
    tmp_path: Path, accepted: str
) -> None:
    away = StorageFailure("away")
    async with edge(tmp_path) as before:
        centre = Failing(before)
        if accepted == "into the spool":
            centre.away = away
        first = await before.create()
        await drafted(before, first.id)
        if accepted == "into the spool":
            centre.away = None
            await connect(before)
            await handed_over(before)
    async with edge(tmp_path, before=before) as made:
        centre.away = away
        partition(made).reach.trip(away)
        with pytest.raises(Unavailable) as raised:
            await made.create()
        assert raised.value.retry_after_s
        with pytest.raises(Conflict):
            await made.create(seed=8)
        other = await made.create(key="another", plan="cloud")
        assert partition(made).spool.ids("t") == [other.id]
        centre.away = None
        await connect(made)
        assert (await made.create()).id == first.id
        assert await made.specs() == [first.id]
