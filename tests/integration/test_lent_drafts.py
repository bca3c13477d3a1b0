"""A draft made at another edge over gRPC: looks and clip, refusals, failures, and that who leaves stops the model."""

import asyncio

import pytest

from adaptivegen.errors import (
    AdaptiveGenError,
    Cancelled,
    GenerationFailed,
    InvalidRequest,
    ModelDigestMismatch,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from adaptivegen.placement import Attempt
from tests.integration.lending import BIG, pair, silent_edge


async def test_a_peer_makes_the_draft_and_shows_its_looks() -> None:
    async with pair() as two:
        spec = await two.spec()
        assert await two.make(spec) == (BIG, "edge-2")
        assert [(look.step, look.steps, look.stage) for look in two.looks] == [(1, 2, "base")]
        (command,) = two.peer.commands
        assert (command.request.prompt, command.request.seed) == (spec.request.prompt, spec.request.seed)
        assert two.home.commands == []
        assert two.attempts == [Attempt(node_id="edge-2", reporter="edge-1", ok=True)]
        assert list(two.places.links) == ["edge-2"]
        assert 0.0 <= two.places.links["edge-2"] < 5.0


async def test_what_a_peer_says_of_its_draft_arrives_whole() -> None:
    async with pair() as two:
        lent = await two.borrow(await two.spec())
        made = lent.generated
        assert (made.width, made.height, made.frames, made.familiarity) == (128, 128, 24, 0.9)
        assert (made.generate_ms, made.encode_ms) == (5.0, 1.0)
        assert lent.took_s >= 0.0


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"token": "dt_guessed"}, PermissionDenied),
        ({"token": ""}, PermissionDenied),
        ({"model_digest": "f" * 64}, ModelDigestMismatch),
        ({"job_id": "vid_01hzzzzzzzzzzzzzzzzzzzzzz9"}, NotFound),
        ({"tenant": "other"}, NotFound),
        ({"tenant": "../other"}, InvalidRequest),
        ({"job_id": "vid/../../pending"}, InvalidRequest),
    ],
)
async def test_a_draft_is_lent_only_for_the_jobs_own_token_and_model(
    changes: dict[str, str], error: type[AdaptiveGenError]
) -> None:
    async with pair() as two:
        spec = await two.spec()
        with pytest.raises(error):
            await two.borrow(spec, **changes)
        assert two.peer.commands == []


async def test_a_job_without_a_token_is_lent_to_nobody() -> None:
    async with pair() as two:
        spec = await two.spec(draft_token="")
        with pytest.raises(PermissionDenied):
            await two.borrow(spec)


async def test_a_peer_that_drains_lends_no_more_and_the_draft_is_made_at_home() -> None:
    async with pair(accepting=lambda: False) as two:
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")
        assert [(attempt.ok, attempt.code) for attempt in two.attempts] == [(False, "node_unavailable")]


async def test_a_peer_that_cannot_be_reached_costs_no_draft() -> None:
    async with pair() as two:
        assert await two.make(await two.spec(address="127.0.0.1:1")) == (b"home's draft", "edge-1")
        assert [attempt.ok for attempt in two.attempts] == [False]


async def test_a_peer_whose_model_fails_is_told_of_and_home_drafts() -> None:
    async with pair() as two:
        two.peer.error = GenerationFailed("out of memory")
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")
        assert [(attempt.ok, attempt.code) for attempt in two.attempts] == [(False, "generation_failed")]


async def test_a_bug_at_the_peer_is_an_error_and_no_silence() -> None:
    async with pair() as two:
        two.peer.error = ZeroDivisionError("by zero")
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")


@pytest.mark.parametrize("error", [ResourceExhausted("16 generations wait"), InvalidRequest("no such size")])
async def test_being_busy_or_asked_wrongly_is_no_fault_of_the_peers(error: AdaptiveGenError) -> None:
    async with pair() as two:
        two.peer.error = error
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")
        assert two.attempts == []


@pytest.mark.parametrize("error", [Cancelled("stopped"), InvalidRequest("no such size")])
async def test_what_home_refuses_is_asked_of_nobody_else(error: AdaptiveGenError) -> None:
    async with pair() as two:
        two.home.error = error
        with pytest.raises(type(error)):
            await two.make(await two.spec(at="edge-1", backup="edge-2"))
        assert two.peer.commands == []


async def test_a_cancel_blames_nobody() -> None:
    async with pair() as two:
        two.peer.may_begin.clear()
        two.home.may_begin.clear()
        making = asyncio.ensure_future(two.make(await two.spec(backup="edge-1", after_s=0.05)))
        await two.home.asked.wait()
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert two.attempts == []


async def test_no_more_than_its_share_is_lent_at_once() -> None:
    async with pair() as two:
        two.peer.may_end.clear()
        ids = [f"vid_01hzzzzzzzzzzzzzzzzzzzzz0{letter}" for letter in "abcdefghjkmnpqrstv"]
        specs = [await two.spec(id=job_id) for job_id in ids]
        making = [asyncio.ensure_future(two.borrow(spec)) for spec in specs]
        done, _ = await asyncio.wait(making, return_when=asyncio.FIRST_COMPLETED)
        assert [type(task.exception()) for task in done] == [ResourceExhausted]
        two.peer.may_end.set()
        assert len([task for task in making if task not in done and (await task).generated.mp4 == BIG]) == 17


async def test_a_job_is_lent_to_one_caller_at_a_time() -> None:
    async with pair() as two:
        two.peer.may_end.clear()
        spec = await two.spec()
        making = asyncio.ensure_future(two.borrow(spec))
        await two.peer.asked.wait()
        with pytest.raises(ResourceExhausted):
            await two.borrow(spec)
        two.peer.may_end.set()
        assert (await making).generated.mp4 == BIG
        assert (await two.borrow(spec)).generated.mp4 == BIG


async def test_nothing_is_lent_while_too_much_waits() -> None:
    async with pair() as two:
        two.peer.waiting["t"] = 8
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")
        assert two.peer.commands == [] and two.attempts == []


async def test_an_edge_that_was_not_to_draft_refuses() -> None:
    async with pair() as two:
        spec = await two.spec(at="edge-1")
        with pytest.raises(PermissionDenied):
            await two.borrow(spec)


@pytest.mark.parametrize("changes", [{"width": 64}, {"frames": 1}])
async def test_a_lent_clip_of_another_shape_is_not_taken(changes: dict[str, int]) -> None:
    async with pair() as two:
        two.peer.shape.update(changes)
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")
        assert [(attempt.ok, attempt.code) for attempt in two.attempts] == [(False, "internal")]


async def test_impossible_times_of_a_peer_are_refused() -> None:
    async with pair() as two:
        two.peer.generate_ms = float("nan")
        assert await two.make(await two.spec()) == (b"home's draft", "edge-1")
        assert two.places.links == {}


async def test_a_cancelled_draft_stops_the_peers_model() -> None:
    async with pair() as two:
        two.peer.may_end.clear()
        making = asyncio.ensure_future(two.make(await two.spec()))
        await two.peer.asked.wait()
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        await two.peer.stopped.wait()


async def test_a_peer_that_says_nothing_is_not_waited_for() -> None:
    async with pair() as two, silent_edge() as address:
        assert await two.make(await two.spec(address=address)) == (b"home's draft", "edge-1")
        assert [attempt.ok for attempt in two.attempts] == [False]
