"""The one grace of a process, and the limits that follow from it."""

import pytest

from adaptivegen.clock import ManualClock
from adaptivegen.drain import DEFAULT_GRACE_S, LONGEST_GRACE_S, Grace, kill_after_s, watchdog_s


@pytest.mark.parametrize("grace_s", [0.2, DEFAULT_GRACE_S, LONGEST_GRACE_S])
def test_a_process_ends_itself_after_its_grace_and_before_it_is_killed(grace_s: float) -> None:
    assert grace_s < watchdog_s(grace_s) < kill_after_s(grace_s)


async def test_all_steps_of_a_drain_share_what_is_left() -> None:
    clock = ManualClock()
    grace = Grace(clock, 10.0)
    assert grace.left_s == 10.0
    await clock.advance(7.5)
    assert grace.left_s == 2.5
    await clock.advance(60)
    assert grace.left_s == 0.0
