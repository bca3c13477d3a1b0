"""When an edge counts as cut off, and when no more."""

from edge_node.spool.circuit import CALM_S, LONGEST_SETTLE_S, SETTLE_S, Circuit


def opened(now_s: float = 0.0) -> Circuit:
    circuit = Circuit()
    circuit.failed("a", now_s=now_s)
    assert circuit.failed("b", now_s=now_s)
    return circuit


def test_one_failure_is_none_and_two_in_a_row_are_a_cut_that_says_why() -> None:
    circuit = Circuit()
    assert not circuit.failed("once", now_s=1)
    assert not circuit.worked(now_s=2)
    assert not circuit.failed("again", now_s=3)
    assert (circuit.open, circuit.why) == (False, "")
    assert circuit.failed("in a row", now_s=4)
    assert (circuit.open, circuit.why, circuit.since_s) == (True, "in a row", 4)


def test_a_further_failure_opens_it_no_second_time_and_is_what_it_says_then() -> None:
    circuit = opened(5)
    assert not circuit.failed("latest", now_s=9)
    assert (circuit.since_s, circuit.why) == (5, "latest")


def test_it_closes_only_when_all_has_worked_for_a_while() -> None:
    circuit = opened()
    assert not circuit.worked(now_s=10)
    assert not circuit.worked(now_s=10 + SETTLE_S / 2)
    circuit.failed("in between", now_s=10.6)
    assert not circuit.worked(now_s=11)
    assert not circuit.worked(now_s=10.9 + SETTLE_S)
    assert circuit.worked(now_s=11 + SETTLE_S)
    assert (circuit.open, circuit.why) == (False, "")


def close(circuit: Circuit, now_s: float) -> float:
    """How long it took to close."""
    circuit.worked(now_s=now_s)
    settle_s = circuit.settle_s
    assert not circuit.worked(now_s=now_s + settle_s - 0.01)
    assert circuit.worked(now_s=now_s + settle_s)
    return settle_s


def test_a_connection_that_comes_and_goes_is_believed_later_each_time_up_to_a_bound() -> None:
    circuit, now_s, took = opened(), 0.0, []
    for _ in range(8):
        took.append(close(circuit, now_s))
        now_s += took[-1] + 1
        circuit.failed("flap", now_s=now_s)
        circuit.failed("flap", now_s=now_s)
    assert took[:3] == [SETTLE_S, 2 * SETTLE_S, 4 * SETTLE_S]
    assert took[-1] == LONGEST_SETTLE_S


def test_after_a_calm_while_a_cut_is_a_new_one() -> None:
    circuit = opened()
    close(circuit, 0)
    circuit.trip("flap", now_s=5)
    assert circuit.settle_s == 2 * SETTLE_S
    close(circuit, 10)
    circuit.trip("later", now_s=12 + CALM_S)
    assert circuit.settle_s == SETTLE_S
