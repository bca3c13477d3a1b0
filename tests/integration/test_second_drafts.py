"""A second try or a second copy of a draft: who helps whom, within budgets, and that losers stop and are not blamed."""

import asyncio

import pytest

from adaptivegen.errors import GenerationFailed, NodeUnavailable, NotFound
from edge_node.draft.race import Copy, Race
from tests.integration.lending import BIG, pair, silent_edge
from tests.jobs import make_spec


async def test_a_backup_that_loses_is_not_blamed() -> None:
    async with pair() as two:
        two.home.may_end.clear()
        two.peer.may_begin.clear()
        making = asyncio.ensure_future(two.make(await two.spec(at="edge-1", backup="edge-2", after_s=0.05)))
        await two.peer.asked.wait()
        two.home.may_end.set()
        assert await making == (b"home's draft", "edge-1")
        assert two.attempts == []


async def test_a_home_that_fails_is_helped_by_its_backup() -> None:
    async with pair() as two:
        two.home.error = NodeUnavailable("the model cannot be loaded")
        assert await two.make(await two.spec(at="edge-1", backup="edge-2")) == (BIG, "edge-2")


async def test_home_drafts_however_often_its_peer_fails() -> None:
    async with pair() as two:
        two.peer.error = GenerationFailed("always")
        spec = await two.spec()
        assert [(await two.make(spec))[1] for _ in range(30)] == ["edge-1"] * 30


async def test_retries_at_another_edge_end_with_their_budget() -> None:
    async with pair() as two:
        two.home.error = GenerationFailed("always")
        spec = await two.spec(at="edge-1", backup="edge-2")
        made = 0
        for _ in range(50):
            try:
                made += (await two.make(spec))[1] == "edge-2"
            except GenerationFailed:
                continue
        assert 10 <= made <= 14  # three at the start, then a fifth


@pytest.mark.parametrize("at", ["edge-1", "edge-2"])
async def test_when_every_place_fails_homes_own_error_is_raised(at: str) -> None:
    async with pair() as two:
        two.peer.error, two.home.error = NotFound("at the peer"), GenerationFailed("at home")
        with pytest.raises(GenerationFailed, match="at home"):
            await two.make(await two.spec(at=at, backup="edge-2" if at == "edge-1" else ""))


async def test_a_peer_that_says_nothing_until_another_drafts_is_told_of() -> None:
    async with pair() as two:
        two.peer.may_begin.clear()
        assert await two.make(await two.spec(backup="edge-1", after_s=0.3)) == (b"home's draft", "edge-1")
        assert [(attempt.ok, attempt.code) for attempt in two.attempts] == [(False, "deadline_exceeded")]


async def test_a_second_copy_is_made_when_the_first_does_not_start_and_the_first_is_stopped() -> None:
    async with pair() as two:
        two.peer.may_begin.clear()
        assert await two.make(await two.spec(backup="edge-1", after_s=0.05)) == (b"home's draft", "edge-1")
        await two.peer.stopped.wait()


async def test_a_loser_that_does_not_stop_delays_nobody() -> None:
    async with pair() as two:
        two.home.may_begin.clear()
        two.home.stubborn = True
        assert await two.make(await two.spec(at="edge-1", backup="edge-2", after_s=0.05)) == (BIG, "edge-2")
        await two.home.stopped.wait()


async def test_of_two_copies_that_run_the_first_to_end_is_taken() -> None:
    async with pair() as two:
        two.peer.may_end.clear()
        making = asyncio.ensure_future(two.make(await two.spec(backup="edge-1", after_s=0.3)))
        assert await making == (b"home's draft", "edge-1")
        await two.peer.stopped.wait()
        assert [look.look_jpeg for look in two.looks] == [b"look of " + BIG[:4]]  # never those of two copies


async def test_a_copy_that_begins_and_shows_nothing_hides_no_other() -> None:
    async with pair() as two:
        two.home.may_begin.clear()  # its turn has come, and its model does nothing
        assert await two.make(await two.spec(at="edge-1", backup="edge-2", after_s=0.05)) == (BIG, "edge-2")
        assert [look.look_jpeg for look in two.looks] == [b"look of " + BIG[:4]]


async def test_a_copy_that_waits_is_stopped_when_the_other_starts() -> None:
    async with pair() as two:
        two.peer.may_begin.clear()
        two.home.has_turn.clear()
        making = asyncio.ensure_future(two.make(await two.spec(backup="edge-1", after_s=0.05)))
        await two.home.asked.wait()
        two.peer.may_begin.set()
        assert await making == (BIG, "edge-2")
        await two.home.stopped.wait()


async def test_second_copies_end_with_their_budget() -> None:
    async with pair() as two:
        spec = await two.spec(backup="edge-1", after_s=0.01)
        for number in range(10):
            two.peer.may_end.clear()
            making = asyncio.ensure_future(two.make(spec))
            if number:  # the one copy that the budget had at the start was made of the first
                await two.peer.asked.wait()
                await asyncio.sleep(0.05)
            two.peer.may_end.set()
            await making
            two.peer.asked.clear()
        assert len(two.home.commands) == 1


async def test_a_copy_that_was_stopped_may_be_begun_again_when_the_other_fails() -> None:
    async with pair() as two:
        two.peer.may_begin.clear()
        two.home.has_turn.clear()
        two.peer.error = GenerationFailed("after it began")
        making = asyncio.ensure_future(two.make(await two.spec(backup="edge-1", after_s=0.05)))
        await two.home.asked.wait()
        two.peer.may_begin.set()
        await two.home.stopped.wait()
        two.home.has_turn.set()
        assert await making == (b"home's draft", "edge-1")


async def test_a_draft_that_waits_for_its_turn_waits_at_a_second_edge_too() -> None:
    async with pair() as two:
        two.home.has_turn.clear()
        made = await two.places.make(
            await two.spec(at="edge-1", backup="edge-2", tied_s=0.05), None, two.looks.append, group=two.group
        )
        assert (made.generated.mp4, made.edge_id, made.late) == (BIG, "edge-2", False)  # how late home was is not known
        await two.home.stopped.wait()
        assert [(attempt.node_id, attempt.ok) for attempt in two.attempts] == [("edge-2", True)]


async def test_an_edge_that_has_taken_a_draft_is_not_blamed_when_another_shows_its_first_look_sooner() -> None:
    async with pair() as two:
        two.peer.may_begin.clear()
        assert await two.make(await two.spec(backup="edge-1", tied_s=0.3)) == (b"home's draft", "edge-1")
        assert two.attempts == []
        await two.peer.stopped.wait()


async def test_an_edge_that_says_nothing_for_long_is_blamed_though_another_was_free() -> None:
    async with pair() as two, silent_edge() as address:
        two.home.has_turn.clear()
        spec = await two.spec(backup="edge-1", tied_s=0.05, after_s=0.3, address=address)
        making = asyncio.ensure_future(two.make(spec))
        await asyncio.sleep(0.5)
        two.home.has_turn.set()
        assert await making == (b"home's draft", "edge-1")
        assert [(attempt.ok, attempt.code) for attempt in two.attempts] == [(False, "deadline_exceeded")]


async def test_a_draft_that_has_begun_is_not_put_in_line_elsewhere() -> None:
    async with pair() as two:
        two.home.may_begin.clear()
        making = asyncio.ensure_future(two.make(await two.spec(at="edge-1", backup="edge-2", tied_s=0.05)))
        await two.home.asked.wait()
        await asyncio.sleep(0.2)
        two.home.may_begin.set()
        assert await making == (b"home's draft", "edge-1")
        assert two.peer.commands == []


async def test_a_draft_that_began_first_where_it_waited_second_is_late_as_any_other() -> None:
    async with pair() as two:
        two.home.has_turn.clear()
        two.peer.may_end.clear()
        spec = await two.spec(at="edge-1", backup="edge-2", tied_s=0.05, after_s=0.4)
        making = asyncio.ensure_future(two.make(spec))
        await two.home.stopped.wait()  # the other has begun, and takes too long
        two.home.has_turn.set()
        async with asyncio.timeout(5.0):
            assert await making == (b"home's draft", "edge-1")
        assert len(two.home.commands) == 2


async def test_a_draft_that_waits_elsewhere_is_not_lost_when_the_second_edge_fails_at_it() -> None:
    for after_step in (False, True):  # it fails at once, or when the other was stopped for it
        async with pair() as two:
            two.peer.may_begin.clear()
            two.home.error = GenerationFailed("it always does")
            two.home.may_end.clear()
            if not after_step:
                two.home.may_begin.clear()
            making = asyncio.ensure_future(two.make(await two.spec(backup="edge-1", tied_s=0.1)))
            await two.home.asked.wait()
            if after_step:
                await two.peer.stopped.wait()
            two.home.may_begin.set()
            two.home.may_end.set()
            two.peer.may_begin.set()
            assert await making == (BIG, "edge-2")


async def test_an_edge_that_is_still_reading_the_job_is_not_blamed_when_another_is_free_sooner() -> None:
    async with pair() as two, silent_edge() as address:
        spec = await two.spec(backup="edge-1", tied_s=0.05, address=address)
        assert await two.make(spec) == (b"home's draft", "edge-1")
        assert two.attempts == []


def test_what_is_due_is_looked_at_again_when_its_time_has_come() -> None:
    decision = make_spec().decision.model_copy(update={"tied_after_s": 1.0, "backup_after_s": 20.0})
    spec = make_spec().model_copy(update={"decision": decision})
    race = Race(spec, None, lambda step: None, lambda version: None)
    assert race.second_is_due(30.0) == ""  # nothing is under way
    race.copies.append(Copy("edge-1", "v", 0.0))
    assert (race.second_after_s(), race.second_is_due(0.9)) == (1.0, "")
    race.begin(race.copies[0])
    assert (race.second_after_s(), race.second_is_due(1.1)) == (20.0, "")  # it has begun by now
    assert (race.second_is_due(20.1), race.second_after_s()) == ("hedged", None)


async def test_drafts_wait_at_two_edges_within_a_budget() -> None:
    async with pair() as two:
        tied = 0
        for _ in range(10):
            two.home.has_turn.clear()
            spec = await two.spec(at="edge-1", backup="edge-2", tied_s=0.01)
            making = asyncio.ensure_future(two.make(spec))
            await two.home.asked.wait()
            await asyncio.sleep(0.05)
            two.home.has_turn.set()
            tied += (await making)[1] == "edge-2"
            two.home.asked.clear()
        assert 3 <= tied <= 5  # three at the start, then a fifth
