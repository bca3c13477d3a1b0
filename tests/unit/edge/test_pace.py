"""How an edge paces its way back: by chance that is given, within bounds."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edge_node.spool.pace import (
    CALM_S,
    EVERYBODY,
    HINT_JITTER,
    LONGEST_PUT_OFF_S,
    LONGEST_SPREAD_S,
    PER_S,
    SPREAD_SHARE,
    Pace,
)


def pace(seed: int = 1) -> Pace:
    return Pace(random.Random(seed))


@given(st.floats(min_value=-1e6, max_value=1e9), st.integers())
def test_the_wait_after_a_cut_is_a_small_share_of_it_and_bounded(cut_s: float, seed: int) -> None:
    assert 0.0 <= pace(seed).back(cut_s=cut_s) <= min(LONGEST_SPREAD_S, max(0.0, cut_s) * SPREAD_SHARE)


def test_many_edges_are_spread_over_the_whole_wait() -> None:
    waits = sorted(pace(seed).back(cut_s=600.0) for seed in range(200))
    assert max(later - sooner for sooner, later in pairwise(waits)) < LONGEST_SPREAD_S / 10
    assert waits[100] - LONGEST_SPREAD_S / 2 < LONGEST_SPREAD_S / 8


def test_gaps_differ_and_are_never_shorter_than_the_pace() -> None:
    made = pace()
    gaps = [made.gap_s() for _ in range(100)]
    assert min(gaps) >= 1 / PER_S and max(gaps) - min(gaps) > 0.25 / PER_S


@given(st.lists(st.floats(min_value=0.0, max_value=1e6), min_size=1, max_size=30), st.integers())
def test_hints_one_after_another_put_a_job_off_for_the_bound_at_most(hints: list[float], seed: int) -> None:
    made, now_s = pace(seed), 0.0
    for hint_s in hints:
        wait_s = made.refused("t", hint_s, now_s=now_s, left_s=None)
        assert wait_s <= hint_s * (1 + HINT_JITTER)
        now_s += wait_s
    assert now_s <= LONGEST_PUT_OFF_S * (1 + 1e-9)


def test_who_was_put_off_for_long_enough_is_put_off_anew_after_it_was_left_alone_and_not_sooner() -> None:
    made = pace()
    now_s = made.refused("t", 2 * LONGEST_PUT_OFF_S, now_s=0.0, left_s=None)
    assert now_s == LONGEST_PUT_OFF_S
    for _ in range(10):  # a spool that is emptied all the same: each job is asked for
        now_s += CALM_S / 2
        assert made.refused("t", 10.0, now_s=now_s, left_s=None) == 0.0
    assert made.refused("other", 10.0, now_s=now_s, left_s=None) >= 10.0
    assert made.refused("t", 10.0, now_s=now_s + CALM_S + 1, left_s=None) >= 10.0


def test_a_hint_about_one_tenant_is_for_its_jobs_and_one_about_nobody_for_all() -> None:
    made = pace()
    wait_s = made.refused("t", 10.0, now_s=0.0, left_s=None)
    assert (made.held_s("t", now_s=1.0), made.held_s("other", now_s=1.0)) == (wait_s - 1.0, 0.0)
    made.refused(EVERYBODY, 20.0, now_s=0.0, left_s=None)
    assert made.held_s("other", now_s=1.0) >= 19.0
    made.taken("other")
    assert (made.held_s("other", now_s=1.0), made.held_s("t", now_s=1.0)) == (0.0, wait_s - 1.0)
    made.back(cut_s=0.0)
    assert made.held_s("t", now_s=1.0) == 0.0


def test_a_job_whose_deadline_would_pass_does_not_wait_and_the_others_do() -> None:
    made = pace()
    assert made.refused("t", 10.0, now_s=0.0, left_s=5.0) == 0.0
    assert made.held_s("t", now_s=0.0) >= 10.0
