"""Seconds of workers in the last hour, by tenant, as several schedulers know them."""

from __future__ import annotations

import pytest

from scheduler.decide.usage import CELL_S, MAX_TENANTS, WINDOW_S, Usage, UsageTold

NOW_S = 1_700_000_100.0


def used(*jobs: tuple[float, float], tenant: str = "a") -> Usage:
    """Jobs as seconds ago and seconds taken."""
    usage = Usage()
    for ago_s, took_s in jobs:
        usage.add(tenant, took_s, placed_at_s=NOW_S - ago_s, now_s=NOW_S)
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


def test_two_schedulers_that_heard_the_same_do_not_count_it_twice() -> None:
    one, other = used((0.0, 5.0), (600.0, 3.0)), used((600.0, 3.0))
    other.merge(one.told(now_s=NOW_S), now_s=NOW_S)
    one.merge(other.told(now_s=NOW_S), now_s=NOW_S)
    assert [usage.used_s("a", now_s=NOW_S) for usage in (one, other)] == [8.0, 8.0]


def test_a_scheduler_that_starts_anew_knows_what_was_used() -> None:
    told = UsageTold.model_validate_json(used((0.0, 5.0)).told(now_s=NOW_S).model_dump_json())
    again = Usage()
    again.merge(told, now_s=NOW_S)
    assert list(again.tenants(now_s=NOW_S)) == [("a", 5.0)]


def test_what_others_tell_of_the_future_or_of_long_ago_is_passed_over() -> None:
    usage = Usage()
    cell = int(NOW_S // CELL_S)
    usage.merge(UsageTold(cells={"a": {cell + 1: 9.0, cell - 100: 9.0, cell: 1.0}}), now_s=NOW_S)
    assert usage.used_s("a", now_s=NOW_S) == 1.0


def test_of_too_many_tenants_those_that_used_most_are_told() -> None:
    usage = Usage()
    for number in range(MAX_TENANTS + 2):
        usage.add(f"t{number}", 1.0 + number, placed_at_s=NOW_S, now_s=NOW_S)
    told = usage.told(now_s=NOW_S)
    assert len(told.cells) == MAX_TENANTS
    assert "t0" not in told.cells
    assert usage.told(now_s=NOW_S + 2 * WINDOW_S).cells == {}
