"""The second edge of a draft: where it is, when a copy waits there and when one is begun there."""

import pytest

from scheduler.decide.drafters import NEVER_S, TIED_S
from scheduler.decide.health import FAILURES_IN_A_ROW
from tests.unit.scheduler.test_drafters import DRAFT_S, asked, edge, seen


def test_a_draft_that_fails_always_has_a_second_place_and_a_copy_only_where_it_is_soon_enough() -> None:
    soon, late = asked(seen(edge(1), edge(2))), asked(seen(edge(1), edge(2, remaining_s=60.0, in_flight=1)))
    assert (soon.backup_edge_id, late.backup_edge_id) == ("edge-2", "edge-2")
    assert 0.0 < soon.backup_after_s < 1.0
    assert late.backup_after_s == NEVER_S
    assert asked(seen(edge(1))).backup_edge_id == ""


def test_a_draft_that_has_not_begun_when_it_should_have_waits_at_the_backup_too() -> None:
    decision = asked(seen(edge(1, remaining_s=1.0, in_flight=1), edge(2, remaining_s=2.0, in_flight=1)))
    assert (decision.drafter, decision.backup_edge_id) == ("edge-1", "edge-2")
    assert decision.tied_after_s == pytest.approx(1.0 + TIED_S)
    assert asked(seen(edge(1))).tied_after_s == 0.0  # where there is no backup, never


def test_a_draft_does_not_wait_at_an_edge_that_would_take_far_longer_for_it() -> None:
    slow = edge(2, remaining_s=DRAFT_S, in_flight=1, elapsed_s=20 * DRAFT_S)
    decision = asked(seen(edge(1, remaining_s=1.0, in_flight=1), slow), requested_plan="refine")
    assert (decision.backup_edge_id, decision.tied_after_s) == ("edge-2", 0.0)


@pytest.mark.parametrize("drafter", ["edge-1", "edge-2"])
def test_where_all_others_are_out_of_rotation_one_of_these_is_the_second_try(drafter: str) -> None:
    out = {"failed_in_row": FAILURES_IN_A_ROW}
    found = seen(*(edge(number, **({} if f"edge-{number}" == drafter else out)) for number in (1, 2)))
    decision = asked(found)
    assert decision.drafter == drafter
    assert decision.backup_edge_id == ("edge-2" if drafter == "edge-1" else "edge-1")
    backup = decision.place(decision.backup_edge_id)
    assert backup is not None and backup.chance == 0.0
    assert decision.tied_after_s > 0.0
    assert decision.backup_after_s == NEVER_S  # a copy that runs beside the first is not begun there
    third = asked(seen(*(edge(number, **({} if number == 1 else out)) for number in (1, 2)), edge(3, remaining_s=5.0)))
    assert third.backup_edge_id == "edge-3"


@pytest.mark.parametrize("other", [{"draining": True}, {"ready": False}, {"lends": ""}, {"grpc_address": ""}])
def test_an_edge_that_could_not_draft_anyway_is_no_second_try(other: dict[str, object]) -> None:
    assert asked(seen(edge(1), edge(2, failed_in_row=FAILURES_IN_A_ROW, **other))).backup_edge_id == ""
