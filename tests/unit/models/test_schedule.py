"""The sampler's arithmetic."""

import itertools

import numpy as np
import pytest

from adaptivegen.models import schedule


@pytest.mark.parametrize(("steps", "t0", "shift"), [(1, 0.0, 1.0), (4, 0.0, 1.0), (6, 0.5, 1.5), (50, 0.9, 3.0)])
def test_times_rise_from_t0_to_one(steps: int, t0: float, shift: float) -> None:
    times = schedule.times(steps, t0=t0, shift=shift)
    assert len(times) == steps + 1
    assert times[0] == pytest.approx(t0)
    assert times[-1] == 1.0
    assert all(a < b for a, b in itertools.pairwise(times))


def test_shift_puts_more_steps_near_the_noise() -> None:
    assert schedule.times(4, shift=2.0)[2] < schedule.times(4, shift=1.0)[2]


@pytest.mark.parametrize(("steps", "t0"), [(0, 0.0), (-1, 0.0), (4, 1.0), (4, -0.1)])
def test_times_refuse_what_is_no_schedule(steps: int, t0: float) -> None:
    with pytest.raises(ValueError, match=r"t0|steps"):
        schedule.times(steps, t0=t0)


def test_a_perfect_prediction_reaches_the_clip_in_any_number_of_steps() -> None:
    rng = np.random.default_rng(0)
    clip, noise = rng.standard_normal((2, 8, 4, 4, 3), dtype=np.float32)
    for steps in (1, 3, 7):
        times = schedule.times(steps)
        z = schedule.renoise(clip, noise, 0.0)
        for t, t_next in itertools.pairwise(times):
            z = schedule.euler(z, clip, t, t_next)
        np.testing.assert_allclose(z, clip, atol=1e-5)


def test_euler_stays_on_the_path() -> None:
    rng = np.random.default_rng(1)
    clip, noise = rng.standard_normal((2, 5), dtype=np.float32)
    z = schedule.euler(schedule.renoise(clip, noise, 0.25), clip, 0.25, 0.6)
    np.testing.assert_allclose(z, schedule.renoise(clip, noise, 0.6), atol=1e-6)


def test_guidance_one_is_the_conditional_and_the_range_is_kept() -> None:
    conditional = np.array([0.5, -0.9], dtype=np.float32)
    unconditional = np.array([0.1, 0.4], dtype=np.float32)
    np.testing.assert_allclose(schedule.guided(conditional, unconditional, 1.0), conditional, atol=1e-6)
    assert np.abs(schedule.guided(conditional, unconditional, 9.0)).max() <= 1.0
