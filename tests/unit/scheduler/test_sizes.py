"""How large clips are, by the card until there are some, then as they were."""

import math
import random

import pytest

from adaptivegen.clock import ManualClock
from adaptivegen.errors import InvalidRequest
from scheduler.decide.sizes import FURTHEST, GUESS, MAX_MODELS, Sizes
from scheduler.placement import Placement
from scheduler.steady import SteadyTime
from tests.unit.scheduler.builders import cards, cloud_card, outcome, place, query, view

PIXELS = 256 * 256 * 24


def test_the_card_tells_until_there_are_clips_and_a_guess_where_it_does_not() -> None:
    sizes, card = Sizes(), cloud_card()
    assert sizes.bytes_of(card, PIXELS) == GUESS * PIXELS
    measured = card.model_copy(update={"bytes_per_pixel": 0.1})
    assert sizes.bytes_of(measured, PIXELS) == pytest.approx(0.1 * PIXELS)
    assert sizes.bytes_of(None, PIXELS) == GUESS * PIXELS


def test_clips_tell_of_clips_of_their_size_and_of_others_until_there_are_some() -> None:
    sizes, card = Sizes(), cloud_card()
    for _ in range(80):
        sizes.observe(card, size_bytes=0.05 * PIXELS, pixels=PIXELS)
    assert sizes.bytes_of(card, PIXELS) == pytest.approx(0.05 * PIXELS, rel=0.05)
    assert sizes.bytes_of(card, PIXELS / 16) == pytest.approx(0.05 * PIXELS / 16, rel=0.05)
    for _ in range(80):
        sizes.observe(card, size_bytes=0.12 * PIXELS / 16, pixels=PIXELS / 16)
    assert sizes.bytes_of(card, PIXELS / 16) == pytest.approx(0.12 * PIXELS / 16, rel=0.05)
    assert sizes.bytes_of(card, PIXELS) == pytest.approx(0.05 * PIXELS, rel=0.05)


@pytest.mark.parametrize("size", [1.0, 1e15])
def test_one_odd_clip_moves_little(size: float) -> None:
    sizes, card = Sizes(), cloud_card()
    before = sizes.bytes_of(card, PIXELS)
    assert sizes.observe(card, size_bytes=size, pixels=PIXELS)
    assert before / 2 < sizes.bytes_of(card, PIXELS) < before * (1 + FURTHEST / 5)


@pytest.mark.parametrize(("size", "pixels"), [(0.0, 1e6), (-1.0, 1e6), (math.nan, 1e6), (1e6, math.inf), (1e6, 0.0)])
def test_what_is_no_clip_teaches_nothing(size: float, pixels: float) -> None:
    sizes = Sizes()
    assert not sizes.observe(cloud_card(), size_bytes=size, pixels=pixels)
    assert sizes.known() == []


def test_no_more_models_are_remembered_than_may_be() -> None:
    sizes, card = Sizes(), cloud_card()
    for number in range(MAX_MODELS + 5):
        sizes.observe(card.model_copy(update={"name": f"m{number}"}), size_bytes=1000.0, pixels=PIXELS)
    assert len(sizes.known()) == MAX_MODELS


async def test_outcomes_teach_and_are_part_of_a_views_name() -> None:
    seen = view()
    decision, before = place(seen), seen.digest()
    made = {"cloud_model": "pocket-cloud", "made_with": "pocket-cloud", "pixels": float(PIXELS), "draft_model": "x"}
    seen.ended(outcome(decision, **made, final_bytes=0.06 * PIXELS, draft_bytes=5.0), now_ns=1)
    assert seen.digest() != before
    ((model, pixels, per_pixel, clips),) = seen.learned.sizes.known()
    assert (model, pixels, clips) == ("pocket-cloud", 2**21, 1)  # about, in powers of two
    assert GUESS < per_pixel < 0.06
    seen.ended(outcome(decision, cloud_model="unheard-of", pixels=1e6, final_bytes=1e6), now_ns=1)
    assert len(seen.learned.sizes.known()) == 1


@pytest.mark.parametrize("name", ["final_bytes", "draft_bytes", "draft_pixels"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, 1e16])
async def test_impossible_sizes_of_files_are_refused_by_field(name: str, value: float) -> None:
    placement = Placement(view(models=cards()), time=SteadyTime(ManualClock()), rng=random.Random(1))
    with pytest.raises(InvalidRequest) as refused:
        await placement.observe(outcome(place(view(), query()), **{name: value}))
    assert refused.value.param == name


@pytest.mark.parametrize("steps", [-1, 1001])
async def test_impossible_steps_of_a_final_are_refused_by_field(steps: int) -> None:
    placement = Placement(view(models=cards()), time=SteadyTime(ManualClock()), rng=random.Random(1))
    with pytest.raises(InvalidRequest) as refused:
        await placement.observe(outcome(place(view(), query()), final_steps=steps))
    assert refused.value.param == "final_steps"
