"""Ratings as a scheduler reads them from the store: the newest, with how good such clips are by the cards."""

from __future__ import annotations

import os
from pathlib import Path

from adaptivegen.blob.store import open_store
from adaptivegen.jobs.rating import Rating
from scheduler.decide.qoe import QoeSettings
from scheduler.ratings import gather
from tests.unit.scheduler.builders import JOB, cards, cloud_card, draft_card, scored, with_scores


def rating(at_ns: int, **changes: object) -> Rating:
    values: dict[str, object] = {
        "id": JOB,
        "tenant": "acme",
        "at_ns": at_ns,
        "intent": "render",
        "plan": "refine",
        "stars": 4,
        "draft_wait_s": 0.5,
        "final_wait_s": 6.0,
        "draft_model": "pocket-draft",
        "draft_size": "128x128",
        "draft_steps": 4,
        "cloud_model": "pocket-cloud",
        "final_size": "256x256",
        "final_steps": 12,
    }
    return Rating.model_validate({**values, **changes})


async def test_those_that_tell_of_waits_come_with_the_qualities_of_what_was_made(tmp_path: Path) -> None:
    blob = open_store(f"file://{tmp_path}")
    cloud = with_scores(cloud_card(), scored("refine", 12, 256, 4.2), scored("cloud", 24, 256, 4.6))
    given = {
        "a": rating(1),
        "b": rating(2, plan="cloud", final_steps=24, intent="iterate", tenant="other"),
        "c": rating(3, plan="draft", final_wait_s=None, final_size="", final_steps=0),
        "d": rating(4, plan="hit", final_steps=24),
        "e": rating(5, final_wait_s=None),  # there was a final, and its client did not see when
        "f": rating(6, draft_wait_s=None),
        "g": rating(7, upgraded=True),
        "s": rating(8, stalls=2, stalled_s=1.5),  # its stars speak of that, too
        "t": rating(9, stalled_s=0.1),
    }
    for name, one in given.items():
        named = one.model_copy(update={"id": name})
        await blob.put(named.key, named.encode())
    await blob.put("ratings/acme/x", b"not a rating")
    await blob.put("ratings/acme/y/30", b'{"stars": 3}')
    await blob.put("ratings/acme/z", rating(8).encode().replace(b"256x256", b"1x" + b"9" * 400))
    found = await gather(blob, cards(draft_card(mos=3.0), cloud), QoeSettings(), limit=100)
    assert {(one.rater, one.iterating, one.final_s, one.draft_quality, one.final_quality) for one in found.ratings} == {
        ("acme", False, 6.0, 3.0, 4.2),
        ("other", True, 6.0, 3.0, 4.6),
        ("acme", False, None, 3.0, 3.5),
        ("acme", False, 6.0, 4.6, 4.6),
    }
    assert found.left_out == 8
    assert {one.final_quality for one in (await gather(blob, {}, QoeSettings(), limit=100)).ratings} == {3.5}
    await blob.close()


async def test_no_more_than_the_limit_are_read_and_the_newest_first(tmp_path: Path) -> None:
    blob = open_store(f"file://{tmp_path}")
    for number in range(40):
        one = rating(number, tenant=f"t{number}")
        await blob.put(one.key, one.encode())
        path = tmp_path / one.key
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    found = await gather(blob, cards(), QoeSettings(), limit=35)
    assert [one.rater for one in found.ratings] == [f"t{number}" for number in range(39, 4, -1)]
    await blob.close()


async def test_who_rates_most_does_not_speak_for_all(tmp_path: Path) -> None:
    blob = open_store(f"file://{tmp_path}")
    for number in range(40):
        one = rating(number, tenant="quiet" if number < 3 else "loud", id=f"{number}")
        await blob.put(one.key, one.encode())
        path = tmp_path / one.key
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    found = await gather(blob, cards(), QoeSettings(), limit=10)
    assert [one.rater for one in found.ratings] == ["loud"] * 7 + ["quiet"] * 3
    await blob.close()
