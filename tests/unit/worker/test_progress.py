"""Progress: never backwards, never done before it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptivegen.generation.messages import Step
from core_cloud.progress import Progress, expect
from tests.cards import cloud_card

SHAPE = {"width": 256, "height": 256, "frames": 24}  # as the profile of the test card
STEPS = st.lists(st.tuples(st.integers(1, 8), st.sampled_from(["base", "upsample"]), st.floats(0.01, 100)), max_size=20)


@given(STEPS)
def test_the_percentage_never_goes_back_and_stays_under_a_hundred(reports: list[tuple[int, str, float]]) -> None:
    progress = Progress(expect(cloud_card(), steps=8, **SHAPE))
    last = 0
    for number, stage, elapsed_s in reports:
        progress.observe(Step(step=number, steps=8, stage=stage), elapsed_s=elapsed_s)
        assert last <= progress.percent <= 99
        assert progress.eta_s >= 0
        last = progress.percent


def test_the_time_left_follows_the_pace_that_was_seen() -> None:
    card = cloud_card()  # 8 steps of 100 ms and the rest: about a second
    usual, slow = Progress(expect(card, steps=8, **SHAPE)), Progress(expect(card, steps=8, **SHAPE))
    usual.observe(Step(step=4, steps=8, stage="base"), elapsed_s=0.4)
    slow.observe(Step(step=4, steps=8, stage="base"), elapsed_s=4.0)
    assert 0.4 < usual.eta_s < 0.8
    assert abs(slow.eta_s - 10 * usual.eta_s) < 0.5


def test_without_a_profile_there_is_still_an_estimate() -> None:
    assert expect(cloud_card(profile=()), steps=5, **SHAPE).total_s > 0


def test_before_a_step_is_done_a_generation_takes_as_long_as_its_shape_says() -> None:
    card = cloud_card()  # 8 steps of 100 ms, 200 ms of upsampling and 20 of encoding, 10 of reading the text
    whole, half = expect(card, steps=8, **SHAPE), expect(card, steps=8, **{**SHAPE, "frames": 12})
    assert whole.total_s == pytest.approx(1.03)
    assert (half.base_s, half.upsample_s, half.encode_s) == pytest.approx((0.41, 0.1, 0.01))
    assert Progress(half).remaining_s(elapsed_s=0.0) == pytest.approx(0.52)
    small = card.profile[0].model_copy(update={"width": 128, "height": 128, "step_ms": 20.0})
    both = cloud_card(profile=(*card.profile, small))
    assert expect(both, steps=8, width=128, height=128, frames=24).base_s == pytest.approx(0.17)
