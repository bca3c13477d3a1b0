"""What an edge does with a request that the scheduler refuses."""

import asyncio

import pytest

from adaptivegen.errors import (
    AdaptiveGenError,
    NodeUnavailable,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
)
from tests.unit.edge.bench import edge


@pytest.mark.parametrize(
    ("code", "error", "retry_after_s"),
    [
        ("quota_exceeded", QuotaExceeded, 9.0),
        ("overloaded", Overloaded, 3.0),
        ("permission_denied", PermissionDenied, None),
    ],
)
async def test_a_refusal_is_the_clients_to_hear_and_leaves_nothing_behind(
    code: str, error: type[AdaptiveGenError], retry_after_s: float | None
) -> None:
    async with edge() as made:
        made.placer.changes = {
            "plan": "refuse",
            "refused": code,
            "refused_param": "pool",
            "retry_after_s": retry_after_s,
        }
        with pytest.raises(error, match="because") as refused:
            await made.create()
        assert (refused.value.param, refused.value.retry_after_s) == ("pool", retry_after_s)
        assert (await made.specs(), await made.queued(), made.accepted) == ([], [], [])
        made.placer.changes = {}
        assert (await made.create()).status == "queued"  # the same key, asked again


async def test_a_refusal_for_no_known_reason_is_no_decision() -> None:
    async with edge() as made:
        made.placer.changes = {"plan": "refuse", "refused": "mood"}
        record = await made.create()
        assert await made.decided_by(record) == "edge-1"


async def test_an_edge_alone_with_as_many_drafts_as_may_wait_refuses_who_wants_nothing_else() -> None:
    async with edge() as made:
        made.placer.error = NodeUnavailable("away")
        made.model.waiting["t"] = 7
        assert (await made.create(key="a", plan="draft")).plan == "draft"
        made.model.waiting["t"] = 8
        with pytest.raises(Overloaded, match="8 drafts wait here, and no scheduler answered") as refused:
            await made.create(key="b", plan="draft")
        assert refused.value.param == "drafts"
        assert refused.value.retry_after_s == pytest.approx(max(1.0, made.drafts.remaining_s / 2))
        assert (await made.create(key="c")).plan == "cloud"  # a final can be made without one


async def test_what_a_request_may_wait_for_reaches_the_scheduler() -> None:
    async with edge() as made:
        await made.create(service_tier="flex", deadline_s=30, allow_reduced=True)
        asked = made.placer.queries[-1]
        assert (asked.tier, asked.deadline_s, asked.allow_reduced) == ("flex", 30.0, True)


async def test_an_upgrade_may_be_refused_and_leaves_the_draft_as_it_is() -> None:
    async with edge() as made:
        made.placer.changes = {"plan": "draft", "final_steps": 0}
        record = await made.create(intent="iterate")
        made.model.go.set()
        while (await made.videos.get("t", record.id)).status != "completed":
            await asyncio.sleep(0.001)
        made.placer.changes = {"plan": "refuse", "refused": "overloaded", "retry_after_s": 5.0}
        with pytest.raises(Overloaded):
            await made.videos.upgrade("t", record.id)
        assert (await made.videos.get("t", record.id)).status == "completed"
