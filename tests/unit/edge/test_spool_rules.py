"""What the spool decides: errors, room, sides, decisions on return."""

from typing import Any

import pytest

from adaptivegen.errors import (
    AdaptiveGenError,
    BrokerUnavailable,
    Conflict,
    DeadlineExceeded,
    InternalError,
    NotFound,
    ResourceExhausted,
    StorageFailure,
    StorageFull,
    StorageReadOnly,
    StoreUnsafe,
    Unavailable,
)
from adaptivegen.placement import Decision
from edge_node.spool.rules import (
    ALLOWANCE_BYTES,
    SpoolLimits,
    check_room,
    deadline_left_s,
    is_cut,
    on_return,
    side_to_change,
    sides_to_read,
)
from tests.jobs import make_spec


@pytest.mark.parametrize("error", [BrokerUnavailable, StorageFailure, DeadlineExceeded, StoreUnsafe])
def test_what_cannot_be_reached_is_a_cut(error: type[AdaptiveGenError]) -> None:
    assert is_cut(error("x"))


@pytest.mark.parametrize(
    "error", [StorageFull, StorageReadOnly, NotFound, Conflict, InternalError, ResourceExhausted, Unavailable]
)
def test_what_was_answered_is_none(error: type[AdaptiveGenError]) -> None:
    assert not is_cut(error("x"))


LIMITS = SpoolLimits(max_jobs=3, max_bytes=10 * ALLOWANCE_BYTES)


@pytest.mark.parametrize(
    ("jobs", "used", "needed", "fits"),
    [
        (2, 0, 0, True),
        (3, 0, 0, False),
        (0, 9 * ALLOWANCE_BYTES, 0, True),
        (0, 9 * ALLOWANCE_BYTES, 1, False),
        (2, 0, 7 * ALLOWANCE_BYTES, True),
        (2, 0, 7 * ALLOWANCE_BYTES + 1, False),  # two drafts may still come
    ],
)
def test_a_job_has_room_with_its_own_draft_and_those_to_come(jobs: int, used: int, needed: int, fits: bool) -> None:
    if fits:
        check_room(LIMITS, jobs=jobs, used_bytes=used, needed_bytes=needed)
        return
    with pytest.raises(ResourceExhausted) as raised:
        check_room(LIMITS, jobs=jobs, used_bytes=used, needed_bytes=needed)
    assert raised.value.retryable
    assert raised.value.retry_after_s


def test_a_job_is_read_where_it_is_newest_and_changed_where_that_is_the_truth() -> None:
    assert sides_to_read("absent", cut_off=True) == ("centre",)
    assert sides_to_read("spooled", cut_off=False) == ("spool",)
    assert sides_to_read("begun", cut_off=False) == ("centre", "spool")
    assert sides_to_read("begun", cut_off=True) == ("spool",)
    assert side_to_change("spooled", cut_off=True) == "spool"
    assert side_to_change("begun", cut_off=False) == side_to_change("absent", cut_off=True) == "centre"
    with pytest.raises(Unavailable) as raised:
        side_to_change("begun", cut_off=True)
    assert raised.value.retry_after_s


def decided(**changes: Any) -> Decision:
    base = make_spec().decision.model_copy(update={"decided_by": "scheduler-2", "pool": "fast"})
    return base.model_copy(update=changes)


def test_a_new_decision_on_the_final_is_followed_and_its_draft_is_not_made_again() -> None:
    spec = make_spec()
    decision = on_return(spec, decided(draft_edge_id="edge-9", backup_edge_id="edge-8"), held_by="")
    assert (decision.pool, decision.decided_by) == ("fast", "scheduler-2")
    assert (decision.drafter, decision.backup_edge_id) == ("edge-1", "")
    assert "because" in decision.reasons[-1]  # what the edge had decided by itself


@pytest.mark.parametrize(
    "answer", [None, decided(plan="refuse", refused="quota_exceeded"), decided(plan="draft"), decided(edge_id="edge-9")]
)
def test_what_was_accepted_is_not_refused_on_return(answer: Decision | None) -> None:
    spec = make_spec()
    assert on_return(spec, answer, held_by="") == spec.decision


def test_a_decision_says_that_the_key_is_anothers() -> None:
    assert "vid_x" in on_return(make_spec(), None, held_by="vid_x").reasons[-1]


def test_what_is_left_of_a_deadline_shrinks_and_one_that_is_over_is_none() -> None:
    assert deadline_left_s(30.0, age_s=10.0) == 20.0
    assert deadline_left_s(30.0, age_s=30.0) is None
    assert deadline_left_s(None, age_s=10.0) is None
