"""The node table: freshness by arrival, lives and sequence numbers, drains, its digest."""

import json

import pytest

from adaptivegen.errors import InvalidRequest
from adaptivegen.nodes import decode_report
from scheduler.decide.node import FRESH_FOR_S
from scheduler.decide.view import FORGET_AFTER_S, NodeTable
from tests.unit.scheduler.builders import NOW_NS, report, table, view

SECOND_NS = 10**9


def after(seconds: float) -> int:
    return NOW_NS + round(seconds * SECOND_NS)


def condition(nodes: NodeTable, now_ns: int = NOW_NS, node_id: str = "edge-1") -> str:
    node = nodes.get(node_id)
    return node.condition(now_ns) if node else "unknown"


def test_a_node_is_stale_after_three_missed_heartbeats() -> None:
    nodes = table(report())
    assert condition(nodes, after(FRESH_FOR_S)) == "healthy"
    assert condition(nodes, after(FRESH_FOR_S + 0.01)) == "stale"
    assert FRESH_FOR_S == 1.5


def test_a_long_silent_node_is_forgotten() -> None:
    nodes = table(report("edge-1"), report("edge-2"))
    nodes.observe(report("edge-2", seq=2), now_ns=after(FORGET_AFTER_S))
    assert nodes.expire(after(FORGET_AFTER_S + 1)) == ["edge-1"]
    assert [node.report.node_id for node in nodes] == ["edge-2"]


@pytest.mark.parametrize("sent_at_ns", [0, NOW_NS - 300 * SECOND_NS, NOW_NS + 300 * SECOND_NS, 2**62])
def test_freshness_ignores_the_clock_of_the_sender(sent_at_ns: int) -> None:
    nodes = table(report(sent_at_ns=sent_at_ns))
    assert condition(nodes, after(1.0)) == "healthy"
    assert condition(nodes, after(2.0)) == "stale"


def test_the_skew_of_a_sender_can_be_seen() -> None:
    node = table(report(sent_at_ns=after(300))).get("edge-1")
    assert node is not None
    assert node.clock_skew_s == pytest.approx(300)


@pytest.mark.parametrize("seq", [1, 0])
def test_a_duplicate_or_older_report_changes_nothing(seq: int) -> None:
    nodes = table(report(seq=1, queued=3))
    assert nodes.observe(report(seq=seq, queued=9), now_ns=after(0.4)) == "old"
    assert condition(nodes, after(1.6)) == "stale"


def test_the_same_message_is_no_sign_of_life_even_when_stale() -> None:
    nodes = table(report())
    assert nodes.observe(report(), now_ns=after(60)) == "old"
    assert condition(nodes, after(60)) == "stale"


def test_a_restarted_node_starts_a_new_life() -> None:
    nodes = table(report(seq=500, started_at_ns=NOW_NS - 10))
    assert nodes.observe(report(seq=0, started_at_ns=NOW_NS), now_ns=after(0.2)) == "accepted"


def test_a_node_restarted_with_its_clock_set_back_returns_once_its_old_life_is_over() -> None:
    nodes = table(report(seq=500))
    reborn = report(seq=0, started_at_ns=1)
    assert nodes.observe(reborn, now_ns=after(0.2)) == "old"
    assert nodes.observe(reborn, now_ns=after(2.0)) == "accepted"
    assert condition(nodes, after(2.0)) == "healthy"


def test_a_receiver_whose_clock_was_set_back_keeps_its_nodes() -> None:
    assert condition(table(report()), NOW_NS - 3600 * SECOND_NS) == "healthy"


@pytest.mark.parametrize(("changes", "expected"), [({"draining": True}, "draining"), ({"ready": False}, "loading")])
def test_what_a_report_says_of_itself(changes: dict[str, object], expected: str) -> None:
    assert condition(table(report(**changes))) == expected


def test_a_drained_node_is_draining_whatever_it_reports() -> None:
    nodes = table(report())
    nodes.set_drained(["edge-1", "not-here-yet"])
    assert condition(nodes) == "draining"
    nodes.observe(report("not-here-yet"), now_ns=NOW_NS)
    assert condition(nodes, node_id="not-here-yet") == "draining"
    nodes.set_drained([])
    assert condition(nodes) == "healthy"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("remaining_s", "NaN"),
        ("remaining_s", "Infinity"),
        ("remaining_s", "-1"),
        ("cpu_percent", "NaN"),
        ("capacity", "100000"),
        ("queued", "-3"),
        ("node_id", '"a.b"'),
        ("node_id", '"*"'),
        ("kind", '"toaster"'),
    ],
)
def test_impossible_values_are_refused_by_name(field: str, value: str) -> None:
    sent = json.loads(report().encode())
    body = ",".join(f'"{key}":{json.dumps(item)}' for key, item in sent.items() if key != field)
    with pytest.raises(InvalidRequest, match=field):
        decode_report(f'{{{body},"{field}":{value}}}'.encode())


def test_a_full_table_takes_no_more() -> None:
    nodes = NodeTable(max_nodes=2)
    for node_id in ("edge-1", "edge-2"):
        nodes.observe(report(node_id), now_ns=NOW_NS)
    assert nodes.observe(report("edge-3"), now_ns=NOW_NS) == "full"
    assert nodes.observe(report("edge-2", seq=2), now_ns=NOW_NS) == "accepted"


def test_only_healthy_workers_of_the_model_serve() -> None:
    seen = view(
        report("worker-1"),
        report("worker-2", pool="big"),
        report("worker-3", ready=False),
        report("worker-4", draining=True),
        report("worker-5", models=("other",)),
        report("edge-1", models=("pocket-cloud",)),
    )
    found = seen.workers("pocket-cloud", now_ns=NOW_NS)
    assert {pool: [node.report.node_id for node in workers] for pool, workers in found.items()} == {
        "default": ["worker-1"],
        "big": ["worker-2"],
    }
    assert seen.workers("pocket-cloud", now_ns=after(5)) == {}
    assert seen.nodes.last_pool("pocket-cloud") in ("default", "big")


def test_work_passes_with_time_and_grows_with_what_was_sent() -> None:
    nodes = table(report(remaining_s=1.0))
    nodes.dispatch_draft("edge-1", 0.5, now_ns=NOW_NS)
    nodes.dispatch_draft("unknown", 0.5, now_ns=NOW_NS)
    node = nodes.get("edge-1")
    assert node is not None
    assert node.remaining_s(after(0.4)) == pytest.approx(1.1)
    nodes.observe(report(seq=2, remaining_s=0.7), now_ns=after(0.5))
    assert node.remaining_s(after(0.5)) == pytest.approx(0.7)


def test_what_the_work_at_hand_has_had_hides_nothing_of_what_waits() -> None:
    for elapsed_s, left_s in ((0.0, 2.0), (0.3, 1.7), (60.0, 1.5)):  # a model that hangs is at work on one of four
        node = table(report(remaining_s=2.0, in_flight=1, queued=3, elapsed_s=elapsed_s)).get("edge-1")
        assert node is not None
        assert node.remaining_s(NOW_NS) == pytest.approx(left_s)


def test_what_is_sent_while_nothing_is_heard_is_forgotten_again() -> None:
    nodes = table(report())
    for second in range(1000):
        nodes.dispatch_draft("edge-1", 0.5, now_ns=after(second))
    node = nodes.get("edge-1")
    assert node is not None
    assert len(node.dispatched) <= 2


def test_slots_of_a_partly_busy_worker() -> None:
    node = table(report("worker-1", capacity=3, in_flight=2, remaining_s=8.0)).get("worker-1")
    assert node is not None
    assert sorted(node.slots_free_at_s(NOW_NS)) == [0.0, 4.0, 4.0]


def test_the_digest_names_the_state_and_not_the_way_to_it() -> None:
    one = table(report("edge-1"), report("worker-1"))
    other = table(report("worker-1"), report("edge-1"))
    assert one.digest() == other.digest()
    seen = {one.digest()}
    one.observe(report("edge-1", seq=2), now_ns=NOW_NS)
    seen.add(one.digest())
    one.set_drained(["worker-1"])
    seen.add(one.digest())
    one.dispatch_draft("edge-1", 0.3, now_ns=NOW_NS)
    seen.add(one.digest())
    assert len(seen) == 4


def test_forgetting_a_node_leaves_the_digest_of_the_rest() -> None:
    nodes = table(report("edge-1"))
    nodes.observe(report("edge-2"), now_ns=after(FORGET_AFTER_S))
    nodes.expire(after(FORGET_AFTER_S + 1))
    assert nodes.digest() == table(report("edge-2")).digest()


def test_a_version_that_no_worker_has_goes_to_the_workers_of_its_line() -> None:
    """At a rollback nobody has the version loaded that serves again; its jobs must not go to a pool that is empty."""
    seen = view()
    seen.hear(report("worker-7", pool="gpu", models=("pocket-2",), line="pocket"), now_ns=NOW_NS)
    assert list(seen.workers("pocket-1", now_ns=NOW_NS, line="pocket")) == ["gpu"]
    assert seen.workers("pocket-1", now_ns=NOW_NS) == seen.workers("pocket-1", now_ns=NOW_NS, line="other") == {}
    assert seen.nodes.last_pool("pocket-1", "pocket") == "gpu" and seen.nodes.last_pool("pocket-1") is None
    again = report("worker-7", pool="gpu", models=("pocket-2",), line="other", seq=99)
    seen.hear(again, now_ns=after(1))
    assert seen.workers("pocket-1", now_ns=after(1), line="pocket") == {}
