"""Ratings as a scheduler reads them from the store: the newest, with how good such clips are by the cards."""

from __future__ import annotations

from pathlib import Path

from adaptivegen.blob.store import open_store
from adaptivegen.jobs.rating import Rating
from scheduler.decide.qoe import QoeSettings
from scheduler.ratings import rated
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


async def test_the_newest_come_first_with_the_qualities_of_what_was_made(tmp_path: Path) -> None:
    blob = open_store(f"file://{tmp_path}")
    cloud = with_scores(cloud_card(), scored("refine", 12, 256, 4.2), scored("cloud", 24, 256, 4.6))
    given = [
        rating(1),
        rating(20, plan="cloud", final_steps=24, intent="iterate", tenant="other"),
        rating(3, plan="draft", final_wait_s=None, final_size="", final_steps=0),
        rating(15, plan="hit", final_steps=24),
    ]
    for one in given:
        await blob.put(one.key, one.encode())
    await blob.put("ratings/acme/vid_x/30", b"not a rating")
    await blob.put("ratings/acme/vid_x/old", b'{"stars": 3}')
    found = await rated(blob, cards(draft_card(mos=3.0), cloud), QoeSettings(), limit=10)
    assert [(one.rater, one.iterating, one.final_s) for one in found] == [
        ("other", True, 6.0),
        ("acme", False, 6.0),
        ("acme", False, None),
        ("acme", False, 6.0),
    ]
    assert [(one.draft_quality, one.final_quality) for one in found] == [(3.0, 4.6), (4.6, 4.6), (3.0, 3.5), (3.0, 4.2)]
    assert [one.final_quality for one in await rated(blob, {}, QoeSettings(), limit=2)] == [3.5]
    await blob.close()
