"""What handing drafts over takes: a mean that forgets."""

import pytest

from adaptivegen.nodes import LINKS_TOLD
from edge_node.draft.links import FORGET_AFTER_S, LONGEST_S, Links


def test_the_first_measurement_holds_until_there_is_a_second() -> None:
    links = Links()
    links.observe("a", 0.8, now_s=0.0)  # with connecting
    assert links.told(now_s=0.0) == {"a": 0.8}
    links.observe("a", 0.02, now_s=1.0)
    assert links.told(now_s=1.0) == {"a": 0.02}
    links.observe("a", 0.12, now_s=2.0)
    assert links.told(now_s=2.0) == {"a": pytest.approx(0.04)}


@pytest.mark.parametrize(("measured_s", "taken_s"), [(-1.0, 0.0), (1e9, LONGEST_S)])
def test_what_cannot_be_is_bounded(measured_s: float, taken_s: float) -> None:
    links = Links()
    links.observe("a", measured_s, now_s=0.0)
    assert links.told(now_s=0.0) == {"a": taken_s}


def test_a_link_that_was_not_used_for_long_is_not_told() -> None:
    links = Links()
    links.observe("a", 0.8, now_s=0.0)
    assert links.told(now_s=FORGET_AFTER_S + 1) == {}


def test_no_more_links_are_kept_than_are_told() -> None:
    links = Links()
    for number in range(LINKS_TOLD + 5):
        links.observe(f"e{number}", 0.1, now_s=0.0)
    found = links.told(now_s=0.0)
    assert len(found) == LINKS_TOLD
    assert "e0" not in found
