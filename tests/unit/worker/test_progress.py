"""Progress: never backwards, never done before it is."""

from hypothesis import given
from hypothesis import strategies as st

from adaptivegen.generation.messages import Step
from core_cloud.progress import Progress, expect
from tests.cards import cloud_card

STEPS = st.lists(st.tuples(st.integers(1, 8), st.sampled_from(["base", "upsample"]), st.floats(0.01, 100)), max_size=20)


@given(STEPS)
def test_the_percentage_never_goes_back_and_stays_under_a_hundred(reports: list[tuple[int, str, float]]) -> None:
    progress = Progress(expect(cloud_card(), steps=8))
    last = 0
    for number, stage, elapsed_s in reports:
        progress.observe(Step(step=number, steps=8, stage=stage), elapsed_s=elapsed_s)
        assert last <= progress.percent <= 99
        assert progress.eta_s >= 0
        last = progress.percent


def test_the_time_left_follows_the_pace_that_was_seen() -> None:
    card = cloud_card()  # 8 steps of 100 ms and the rest: about a second
    usual, slow = Progress(expect(card, steps=8)), Progress(expect(card, steps=8))
    usual.observe(Step(step=4, steps=8, stage="base"), elapsed_s=0.4)
    slow.observe(Step(step=4, steps=8, stage="base"), elapsed_s=4.0)
    assert 0.4 < usual.eta_s < 0.8
    assert abs(slow.eta_s - 10 * usual.eta_s) < 0.5


def test_without_a_profile_there_is_still_an_estimate() -> None:
    assert expect(cloud_card(profile=()), steps=5).total_s > 0
