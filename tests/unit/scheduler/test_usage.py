"""Seconds of workers in the last hour, by tenant, as several schedulers know them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.decide.usage import CELL_S, MAX_TENANTS, WINDOW_S, Usage, UsageTold

NOW_S = 1_700_000_100.0


def used(*jobs: tuple[float, float], tenant: str = "a") -> Usage:
    """Jobs as seconds ago and seconds taken."""
    usage = Usage()
    for ago_s, took_s in jobs:
        usage.add(tenant, took_s, decided_at_s=NOW_S - ago_s, now_s=NOW_S)
    return usage


def test_what_was_used_in_the_last_hour_counts() -> None:
    usage = used((0.0, 5.0), (1800.0, 7.0), (WINDOW_S + CELL_S, 100.0))
    assert usage.used_s("a", now_s=NOW_S) == 12.0
    assert usage.used_s("b", now_s=NOW_S) == 0.0
    assert usage.used_s("a", now_s=NOW_S + WINDOW_S + CELL_S) == 0.0


def test_the_future_is_now() -> None:
    assert used((-1e6, 5.0)).used_s("a", now_s=NOW_S) == 5.0


def test_it_is_told_when_enough_will_be_free() -> None:
    usage = used((3000.0, 10.0), (1000.0, 10.0))
    first_s, second_s = (usage.free_in_s("a", seconds, now_s=NOW_S) for seconds in (10.0, 15.0))
    assert 300.0 <= first_s <= 900.0 < second_s <= WINDOW_S
    assert usage.used_s("a", now_s=NOW_S + first_s) == pytest.approx(10.0)
    assert usage.used_s("a", now_s=NOW_S + second_s) == 0.0
    assert usage.free_in_s("a", 1e9, now_s=NOW_S) == WINDOW_S


def exchanged(*schedulers: Usage) -> list[float]:
    """What each takes the tenant to have used when all have told all, twice."""
    for _ in range(2):
        for name, usage in enumerate(schedulers):
            told = UsageTold.model_validate_json(usage.told(now_s=NOW_S).model_dump_json())
            for other in schedulers:
                if other is not usage:
                    other.hear(f"s-{name}", told)
    return [usage.used_s("a", now_s=NOW_S) for usage in schedulers]


def test_what_several_schedulers_heard_counts_once_however_often_it_is_told() -> None:
    one, other, third = used((0.0, 5.0), (600.0, 3.0)), used((600.0, 3.0)), used()
    assert exchanged(one, other, third) == [8.0, 8.0, 8.0]
    other.add("a", 5.0, decided_at_s=NOW_S, now_s=NOW_S)  # heard late, after the first had told of it
    third.add("a", 5.0, decided_at_s=NOW_S, now_s=NOW_S)
    assert exchanged(one, other, third) == [8.0, 8.0, 8.0]


def test_a_scheduler_that_starts_anew_knows_what_it_had_counted() -> None:
    told = UsageTold.model_validate_json(used((0.0, 5.0)).told(now_s=NOW_S).model_dump_json())
    again = Usage()
    again.resume(told)
    again.add("a", 2.0, decided_at_s=NOW_S, now_s=NOW_S)
    assert list(again.tenants(now_s=NOW_S)) == [("a", 7.0)]
    assert again.told(now_s=NOW_S).cells["a"] == {int(NOW_S // CELL_S): 7.0}


def test_what_others_tell_of_the_future_or_of_long_ago_is_passed_over() -> None:
    usage = Usage()
    cell = int(NOW_S // CELL_S)
    usage.hear("s-2", UsageTold(cells={"a": {cell + 9: 9.0, cell - 100: 9.0, cell: 1.0}}))
    assert usage.used_s("a", now_s=NOW_S) == 1.0


def test_two_clocks_that_differ_put_a_job_into_the_same_cell() -> None:
    edge_s = CELL_S * (NOW_S // CELL_S + 1)  # a cell begins
    behind, ahead = Usage(), Usage()
    for usage, now_s in ((behind, edge_s - 30.0), (ahead, edge_s + 30.0)):
        usage.add("a", 7.0, decided_at_s=edge_s + 1.0, now_s=now_s)
    ahead.hear("s-1", behind.told(now_s=edge_s - 30.0))
    behind.hear("s-2", ahead.told(now_s=edge_s + 30.0))
    assert [ahead.used_s("a", now_s=edge_s + 30.0), behind.used_s("a", now_s=edge_s - 30.0)] == [7.0, 7.0]


def test_a_name_that_is_none_is_not_counted() -> None:
    usage = used((0.0, 5.0), tenant="a" * 64)
    assert usage.told(now_s=NOW_S).cells == {}


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0.0, 7200.0), st.floats(0.0, 1e5)), max_size=30))
def test_whatever_is_heard_where_nobody_counts_more_than_all_there_was(jobs: list[tuple[int, float, float]]) -> None:
    schedulers = [Usage(), Usage(), Usage()]
    for number, ago_s, took_s in jobs:
        for usage in schedulers[: number + 1]:  # the others have missed it
            usage.add("a", took_s, decided_at_s=NOW_S - ago_s, now_s=NOW_S)
    most = used(*((ago_s, took_s) for _, ago_s, took_s in jobs)).used_s("a", now_s=NOW_S)
    assert exchanged(*schedulers) == pytest.approx([most] * 3, rel=1e-3, abs=0.1)


def test_of_too_many_tenants_those_that_used_most_are_told() -> None:
    usage = Usage()
    for number in range(MAX_TENANTS + 2):
        usage.add(f"t{number}", 1.0 + number, decided_at_s=NOW_S, now_s=NOW_S)
    told = usage.told(now_s=NOW_S)
    assert len(told.cells) == MAX_TENANTS
    assert "t0" not in told.cells
    assert usage.told(now_s=NOW_S + 2 * WINDOW_S).cells == {}
