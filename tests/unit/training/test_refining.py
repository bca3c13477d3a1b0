"""Which way of refining is chosen from what was measured."""

import pytest

pytest.importorskip("torch", reason="the training extra (torch) is not installed")

from training.refining import Search, Trial, markdown
from training.statistics import share


def trial(t0: float, steps: int, *, kept: int = 100, near: int = 100, mean: int = 95) -> Trial:
    return Trial(t0, steps, share(kept, 100), share(near, 100), {"mean": share(mean, 100), "all": share(80, 100)})


def search(*trials: Trial) -> Search:
    return Search(list(trials), {"mean": share(94, 100), "all": share(80, 100)})


def test_the_fewest_steps_that_keep_the_draft_and_cost_no_quality_are_best() -> None:
    forgets, strays, poor = trial(0.3, 2, kept=96), trial(0.4, 2, near=90), trial(0.8, 2, mean=93)
    fair, better, slow = trial(0.5, 4, mean=94), trial(0.6, 4, mean=96), trial(0.5, 6, mean=99)
    assert search(forgets, strays, poor, fair, better, slow).best() == better


def test_where_no_way_is_good_enough_there_is_no_best() -> None:
    assert search(trial(0.3, 2, kept=90), trial(0.8, 6, mean=90)).best() is None


def test_every_trial_and_finals_from_noise_have_a_line() -> None:
    lines = markdown(search(trial(0.5, 4), trial(0.5, 6))).splitlines()
    assert len(lines) == 5
    assert lines[2].startswith("| 0.5 | 4 | 100 %")
    assert lines[-1].startswith("| noise |")
