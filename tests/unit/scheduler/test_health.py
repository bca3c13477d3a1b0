"""Who is kept out of rotation, for how long, and how gently nodes come back."""

import pytest

from scheduler.decide.health import (
    DOUBTED_S,
    EJECTED_S,
    FAILURES_IN_A_ROW,
    FORGIVEN_S,
    LONGEST_EJECTED_S,
    SLOW_START_S,
    Healths,
)


def healths(*names: str) -> Healths:
    found = Healths()
    for name in names or ("a",):
        found.enter(name, now_s=0.0)
    return found


def out(found: Healths, name: str, now_s: float) -> bool:
    """As the edge sees it that asks and tells."""
    return found.ejected(name, now_s=now_s, asker="peer")


def fail(found: Healths, name: str, *, now_s: float, times: int = FAILURES_IN_A_ROW) -> None:
    for _ in range(times):
        found.attempted(name, "peer", False, now_s=now_s)


def test_a_node_is_ejected_after_failures_in_a_row_and_comes_back() -> None:
    found = healths()
    fail(found, "a", now_s=10.0, times=FAILURES_IN_A_ROW - 1)
    assert not out(found, "a", 10.0)
    found.attempted("a", "peer", False, now_s=10.0)
    assert out(found, "a", 10.0)
    assert out(found, "a", 10.0 + EJECTED_S - 0.1)
    assert not out(found, "a", 10.0 + EJECTED_S)


def test_a_success_between_failures_counts() -> None:
    found = healths()
    for _ in range(10):
        fail(found, "a", now_s=1.0, times=FAILURES_IN_A_ROW - 1)
        found.attempted("a", "peer", True, now_s=1.0)
    assert not out(found, "a", 1.0)


def test_an_ejection_long_after_the_last_is_as_good_as_a_first() -> None:
    found = healths()
    fail(found, "a", now_s=1.0)
    before, again_s = found.revision, 2 * FORGIVEN_S
    fail(found, "a", now_s=again_s)
    assert out(found, "a", again_s)
    assert not out(found, "a", again_s + EJECTED_S)
    assert found.revision > before


@pytest.mark.parametrize("by", ["its own word", "another's"])
def test_a_node_that_makes_something_while_it_is_out_comes_back_slowly(by: str) -> None:
    found = healths()
    if by == "another's":
        fail(found, "a", now_s=100.0)
    else:
        found.hear("a", FAILURES_IN_A_ROW, now_s=100.0)
    before = found.revision
    assert out(found, "a", 100.5)
    found.hear("a", 0, now_s=100.5) if by == "its own word" else found.attempted("a", "peer", True, now_s=100.5)
    assert not out(found, "a", 100.5)
    assert found.revision > before
    assert found.weight("a", now_s=100.6, asker="peer") < 0.2
    found.hear("a", 0, now_s=101.0)
    assert found.weight("a", now_s=100.5 + SLOW_START_S, asker="peer") == 1.0  # it is not put back again and again


def test_the_next_failure_after_such_a_return_is_enough_and_keeps_it_out_for_longer() -> None:
    found = healths()
    fail(found, "a", now_s=10.0)
    found.attempted("a", "peer", True, now_s=10.2)
    fail(found, "a", now_s=11.0)
    assert out(found, "a", 11.0 + 2 * EJECTED_S - 0.1)


def test_each_ejection_is_longer_than_the_last_up_to_a_bound() -> None:
    found, now_s, lengths = healths(), 0.0, []
    for _ in range(15):
        fail(found, "a", now_s=now_s)
        length = next(s for s in range(1, 1000) if not out(found, "a", now_s + s))
        lengths.append(length)
        now_s += length
    assert lengths[:4] == [EJECTED_S, 2 * EJECTED_S, 4 * EJECTED_S, 8 * EJECTED_S]
    assert max(lengths) == LONGEST_EJECTED_S


def test_an_ejection_long_ago_is_forgiven() -> None:
    found = healths()
    for _ in range(3):
        fail(found, "a", now_s=0.0)
        fail(found, "a", now_s=1000.0)
    found = healths()
    fail(found, "a", now_s=0.0)
    fail(found, "a", now_s=10_000.0)
    assert not out(found, "a", 10_000.0 + EJECTED_S)


def test_failures_of_a_node_that_is_out_make_nothing_longer() -> None:
    found = healths()
    fail(found, "a", now_s=0.0)
    fail(found, "a", now_s=0.9 * EJECTED_S, times=100)
    assert not out(found, "a", EJECTED_S)


def test_the_first_failure_after_an_ejection_is_enough_and_a_success_is_believed() -> None:
    found = healths()
    fail(found, "a", now_s=0.0)
    fail(found, "a", now_s=EJECTED_S, times=1)
    assert out(found, "a", EJECTED_S + 1.9 * EJECTED_S)
    found.attempted("a", "peer", True, now_s=3 * EJECTED_S)
    fail(found, "a", now_s=3 * EJECTED_S, times=FAILURES_IN_A_ROW - 1)
    assert not out(found, "a", 3 * EJECTED_S)


def test_a_node_that_has_just_failed_is_doubted_for_a_while_and_not_after_a_success() -> None:
    found = healths()
    assert found.doubt("a", now_s=0.0, asker="peer") == 0.0
    fail(found, "a", now_s=0.0, times=1)
    first = found.doubt("a", now_s=0.0, asker="peer")
    assert first == pytest.approx(2 / 3)
    assert found.doubt("a", now_s=0.0, asker="b") == found.doubt("a", now_s=0.0, asker="a") == 0.0
    assert found.doubt("a", now_s=DOUBTED_S / 2, asker="peer") == pytest.approx(first / 2)
    assert found.doubt("a", now_s=DOUBTED_S, asker="peer") == 0.0
    fail(found, "a", now_s=1.0, times=1)
    assert found.doubt("a", now_s=1.0, asker="peer") == pytest.approx(3 / 4)
    found.attempted("a", "peer", True, now_s=1.0)
    assert found.doubt("a", now_s=1.0, asker="peer") == 0.0
    found.hear("a", 1, now_s=2.0)
    assert found.doubt("a", now_s=2.0, asker="b") == pytest.approx(2 / 3)  # its own word counts for all
    found.hear("a", 0, now_s=2.5)
    assert found.doubt("a", now_s=2.5, asker="b") == 0.0


def test_a_node_tells_of_its_own_failures() -> None:
    found = healths()
    found.hear("a", FAILURES_IN_A_ROW - 1, now_s=1.0)
    assert not found.ejected("a", now_s=1.0)
    found.hear("a", FAILURES_IN_A_ROW, now_s=2.0)
    assert found.ejected("a", now_s=2.0)


def test_what_a_node_said_before_its_ejection_counts_no_second_time() -> None:
    found = healths()
    for second in range(100):
        found.hear("a", FAILURES_IN_A_ROW, now_s=float(second))
    assert not found.ejected("a", now_s=EJECTED_S + 1)
    found.hear("a", FAILURES_IN_A_ROW + 1, now_s=101.0)
    assert found.ejected("a", now_s=101.0)


def test_a_restart_begins_anew() -> None:
    found = healths()
    fail(found, "a", now_s=0.0)
    found.enter("a", now_s=5.0)
    assert not out(found, "a", 5.0)


def test_how_often_a_node_was_ejected_outlives_its_restart() -> None:
    found = healths()
    found.hear("a", FAILURES_IN_A_ROW, now_s=0.0)
    found.enter("a", now_s=5.0)
    found.hear("a", FAILURES_IN_A_ROW, now_s=6.0)
    assert found.ejected("a", now_s=6.0 + EJECTED_S)
    assert not found.ejected("a", now_s=6.0 + 2 * EJECTED_S)


def test_the_word_of_one_edge_counts_for_that_edge_alone() -> None:
    found = healths("a", "b")
    fail(found, "a", now_s=1.0)
    assert found.ejected("a", now_s=1.0, asker="peer")
    assert not found.ejected("a", now_s=1.0, asker="b")
    assert not found.ejected("a", now_s=1.0, asker="a")
    assert not found.ejected("a", now_s=1.0)


def test_the_word_of_two_edges_counts_for_all_but_the_node_itself() -> None:
    found = healths("a", "b")
    for reporter in ("peer", "other"):
        for _ in range(FAILURES_IN_A_ROW):
            found.attempted("a", reporter, False, now_s=1.0)
    assert found.ejected("a", now_s=1.0, asker="b")
    assert not found.ejected("a", now_s=1.0, asker="a")


def test_a_node_tells_nothing_of_itself_in_anothers_place() -> None:
    found = healths("a")
    for _ in range(100):
        found.attempted("a", "a", False, now_s=1.0)
    assert "revision=0" in repr(found)


def test_failures_far_apart_are_no_row() -> None:
    found = healths()
    for number in range(20):
        fail(found, "a", now_s=number * (FORGIVEN_S + 1), times=1)
    assert not out(found, "a", 20 * (FORGIVEN_S + 1))


def test_a_node_that_comes_into_rotation_gets_a_growing_share() -> None:
    found = healths()
    assert found.weight("a", now_s=0.0) == pytest.approx(0.1)
    assert found.weight("a", now_s=SLOW_START_S / 2) == pytest.approx(0.5)
    assert found.weight("a", now_s=SLOW_START_S) == 1.0
    fail(found, "a", now_s=100.0)
    assert found.weight("a", now_s=100.0 + EJECTED_S, asker="peer") == pytest.approx(0.1)
    assert found.weight("a", now_s=100.0 + EJECTED_S + SLOW_START_S, asker="peer") == 1.0


@pytest.mark.parametrize(("gone", "kept"), [(0, 4), (1, 3), (2, 2), (3, 4), (4, 4)])
def test_when_most_would_be_out_nobody_is(gone: int, kept: int) -> None:
    names = ["a", "b", "c", "d"]
    found = healths(*names)
    for name in names[:gone]:
        fail(found, name, now_s=1.0)
    assert len(found.in_rotation(names, str, now_s=1.0, asker="peer")) == kept


def test_the_only_node_is_never_out() -> None:
    found = healths("a")
    found.hear("a", 100, now_s=1.0)
    assert found.in_rotation(["a"], str, now_s=1.0, asker="a") == ["a"]


def test_nothing_is_kept_of_nodes_never_heard_of() -> None:
    found = healths("a")
    fail(found, "ghost", now_s=1.0, times=100)
    assert not found.ejected("ghost", now_s=1.0)
    assert found.weight("ghost", now_s=1.0) == 1.0
    found.leave("a")
    assert "nodes=0" in repr(found)
