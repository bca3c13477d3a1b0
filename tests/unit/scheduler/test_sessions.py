"""Where sessions stay, and when they move."""

from scheduler.decide.sessions import (
    CROSSED_S,
    DWELL_S,
    FORGET_AFTER_S,
    GAIN,
    MAX_SESSIONS,
    MAX_TENANTS,
    PATIENCE,
    Sessions,
    stays,
)


def test_a_session_stays_until_another_edge_is_better_time_after_time() -> None:
    found = Sessions()
    moved = []
    for second in range(0, 20, 2):
        session = found.get("t", "s", now_s=second)
        stay = stays(session, gain=GAIN, now_s=second)
        moved.append(not stay)
        found.note("t", "s", edge_id="a", gain=GAIN, now_s=second)
    assert moved == [True] + [False] * (PATIENCE - 1) + [True] * (10 - PATIENCE)


def test_a_passing_advantage_is_no_reason_to_move() -> None:
    found = Sessions()
    for second in range(100):
        gain = 0.0 if second % PATIENCE == 0 else 3.0
        if second:
            assert stays(found.get("t", "s", now_s=second), gain=gain, now_s=second)
        found.note("t", "s", edge_id="a", gain=gain, now_s=second)


def test_a_session_that_has_just_come_stays_for_a_while() -> None:
    found = Sessions()
    for tenth in range(20):
        found.note("t", "s", edge_id="a", gain=3.0, now_s=tenth / 10)
    assert stays(found.get("t", "s", now_s=2.0), gain=3.0, now_s=2.0)
    assert not stays(found.get("t", "s", now_s=DWELL_S), gain=3.0, now_s=DWELL_S)


def test_moving_begins_a_new_stay() -> None:
    found = Sessions()
    for second in range(10):
        found.note("t", "s", edge_id="a", gain=3.0, now_s=second)
    found.note("t", "s", edge_id="b", gain=3.0, now_s=10.0)
    session = found.get("t", "s", now_s=11.0)
    assert session is not None
    assert (session.edge_id, session.since_s, session.better) == ("b", 10.0, 1)
    assert stays(session, gain=3.0, now_s=11.0)


def test_of_two_that_were_placed_at_once_one_gives_way_and_a_later_move_is_taken_over() -> None:
    found = Sessions()
    assert found.gives_way("t", "s", edge_id="b", now_s=0.0)
    found.note("t", "s", edge_id="b", gain=0.0, now_s=0.0)
    for now_s, taken in ((CROSSED_S / 2, ["a", "b"]), (2 * CROSSED_S, ["a", "b", "c"])):
        assert [edge for edge in "abc" if found.gives_way("t", "s", edge_id=edge, now_s=now_s)] == taken


def test_sessions_are_of_one_tenant_and_forgotten() -> None:
    found = Sessions()
    found.note("t", "s", edge_id="a", gain=0.0, now_s=0.0)
    assert found.get("other", "s", now_s=0.0) is None
    assert found.get("t", "s", now_s=FORGET_AFTER_S + 1) is None
    found.note("t", "", edge_id="a", gain=0.0, now_s=0.0)
    assert found.get("t", "", now_s=0.0) is None


def test_no_more_sessions_are_kept_than_the_bound() -> None:
    found = Sessions()
    for index in range(MAX_SESSIONS + 10):
        found.note("t", f"s{index}", edge_id="a", gain=0.0, now_s=0.0)
    assert repr(found) == f"Sessions({MAX_SESSIONS})"
    assert found.get("t", "s0", now_s=0.0) is None


def test_one_tenants_sessions_push_out_no_others() -> None:
    found = Sessions()
    found.note("quiet", "s", edge_id="a", gain=0.0, now_s=0.0)
    for index in range(10 * MAX_SESSIONS):
        found.note("busy", f"s{index}", edge_id="a", gain=0.0, now_s=0.0)
    assert found.get("quiet", "s", now_s=0.0) is not None
    for index in range(MAX_TENANTS):
        found.note(f"t{index}", "s", edge_id="a", gain=0.0, now_s=0.0)
    assert found.get("quiet", "s", now_s=0.0) is None
