"""How far predictions may be off, by part and by family."""

from __future__ import annotations

import math
import random

from scheduler.decide.learn import LearnSettings
from scheduler.decide.learned import draft_part, final_part
from scheduler.decide.spreads import MAX_PARTS, Part, Spread, Spreads

REFINE, CLOUD = (final_part(plan, "dated", "default") for plan in ("refine", "cloud"))
OTHERS = final_part("refine", "unawaited", "default")


def told(spreads: Spreads, part: Part, off: float) -> None:
    spreads.observe(part, off, upper=spreads.upper(part), centre=spreads.centre(part))


def test_one_accident_says_little_of_what_is_to_be_expected() -> None:
    """The upper end was 1.4 times what was predicted, and more than five times for the next twenty outcomes."""
    spread = Spread()
    before = spread.upper
    spread.observe(math.log(5.0))
    assert before <= spread.upper < math.log(2.0)
    for _ in range(30):
        spread.observe(0.0)
        assert spread.upper < math.log(2.0)


def test_parts_that_stand_alike_tell_of_one_another_while_little_is_known_of_one() -> None:
    spreads, rng = Spreads(LearnSettings()), random.Random(3)
    unknown = spreads.upper(CLOUD)
    for _ in range(80):
        told(spreads, REFINE, rng.gauss(0.0, 0.6))
    assert spreads.upper(CLOUD) > 1.5 * unknown  # of which there was no outcome
    assert spreads.upper(OTHERS) == unknown  # another family
    told(spreads, CLOUD, 0.0)
    assert spreads.upper(CLOUD) > 1.5 * unknown
    for _ in range(100):
        told(spreads, CLOUD, rng.gauss(0.0, 0.02))
    assert spreads.upper(CLOUD) < 0.1 < spreads.upper(REFINE)


def test_outcomes_of_one_part_count_at_once_for_those_that_borrow_them() -> None:
    spreads = Spreads(LearnSettings())
    told(spreads, CLOUD, 0.0)
    before = spreads.upper(CLOUD)
    for _ in range(30):
        told(spreads, REFINE, 1.0)
    assert spreads.upper(CLOUD) > before + 0.3


def test_drafts_at_home_and_at_peers_are_of_one_family_and_finals_by_how_they_stand() -> None:
    assert draft_part().family == draft_part("gpu", at_peer=True).family
    assert REFINE.family == CLOUD.family != OTHERS.family


def test_pools_are_kept_apart_but_for_the_usual_one() -> None:
    """Each has machines of its own kind."""
    slow, fast = (final_part("refine", "awaited", pool) for pool in ("cpu", "gpu"))
    assert (slow.name, fast.name) == ("final refine in cpu", "final refine in gpu")
    assert final_part("refine", "awaited", "default").name == "final refine"
    spreads, rng = Spreads(LearnSettings()), random.Random(4)
    for _ in range(200):
        told(spreads, slow, rng.gauss(0.0, 0.5))
        told(spreads, fast, rng.gauss(0.0, 0.02))
    assert spreads.upper(fast) < 0.1 < 0.5 < spreads.upper(slow)


def test_drafts_are_kept_apart_by_the_class_of_edge_that_makes_them() -> None:
    names = [draft_part(kind, at_peer=at_peer).name for kind in ("", "gpu") for at_peer in (False, True)]
    assert names == ["draft", "draft at a peer", "draft in gpu", "draft at a peer in gpu"]
    spreads, rng = Spreads(LearnSettings()), random.Random(5)
    for _ in range(200):
        told(spreads, draft_part("cpu"), rng.gauss(0.0, 0.5))
        told(spreads, draft_part("gpu"), rng.gauss(0.0, 0.02))
    assert spreads.upper(draft_part("gpu")) < 0.1 < 0.5 < spreads.upper(draft_part("cpu"))


def test_what_is_kept_is_bounded() -> None:
    spreads = Spreads(LearnSettings())
    for number in range(MAX_PARTS + 5):
        told(spreads, Part(f"final refine in {number}", f"family {number % 3}"), 0.1)
    names = {name for name, _ in spreads}
    assert len(names) == MAX_PARTS
    assert "final refine in 0" not in names
