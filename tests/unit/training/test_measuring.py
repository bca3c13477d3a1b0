"""What measures the models must itself be right: matching, agreement, distances, intervals, the opinion formula."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra (torch) is not installed")

from training import evaluate, report  # noqa: E402
from training.evaluate import Asked, Recipe, asked  # noqa: E402
from training.grammar import COLOURS, MAX_OBJECTS, Scene, Thing, held_out  # noqa: E402
from training.judge import FRAMES, Judge, Seen, cut_out, hard, judge_input, told_apart  # noqa: E402
from training.publish import card_scores  # noqa: E402
from training.scores import Scored, Way, draft_ways, final_ways, mean_opinion  # noqa: E402
from training.statistics import Figure, frechet, mean, share  # noqa: E402
from training.train_judge import picked, true_colours, truth  # noqa: E402
from training.world import clip_times, render, scene_batch, trajectory  # noqa: E402


def reading(scenes: list[Scene], seed: int = 0) -> Seen:
    """What a judge without fault says of renders of the scenes."""
    batch = scene_batch(scenes, seed)
    path = trajectory(batch, clip_times(FRAMES))
    tracks = torch.stack([path.x, path.y, path.radius], dim=-1)
    there = (batch.things[:, :, 0] >= 0).float()
    return Seen(batch.things.clone(), there, batch.setting.clone(), tracks, torch.randn(len(scenes), 16))


ONE = [Scene((Thing("star", "red", "big", "dotted", "left"),), "sea", "pan", "night")]
TWO = [Scene((Thing("star", "red", motion="left"), Thing("ring", "blue", motion="grow")), "snow")]


def test_a_faultless_reading_is_all_right() -> None:
    scenes = asked(40, 2, novel=None).scenes
    figures = evaluate.accuracy(reading(scenes), scenes)
    assert all(figure.value == 1.0 for figure in figures.values())
    assert figures["shape"].n == 80
    assert figures["background"].n == 40


@pytest.mark.parametrize("column", range(5))
def test_a_wrong_attribute_counts_against_that_attribute_and_all(column: int) -> None:
    found = reading(ONE)
    found.things[0, 0, column] = (found.things[0, 0, column] + 1) % 3
    figures = evaluate.accuracy(found, ONE)
    wrong = {name for name, figure in figures.items() if figure.value < 1.0}
    assert wrong == {("shape", "colour", "size", "texture", "motion")[column], "all", "mean"}


def test_swapped_objects_are_matched_by_what_they_are() -> None:
    found = reading(TWO)
    found.things[0, [0, 1]] = found.things[0, [1, 0]].clone()
    assert evaluate.accuracy(found, TWO)["all"].value == 1.0
    assert evaluate.matched(found, 0, TWO[0]) == [1, 0]


def test_swapped_colours_are_not_forgiven() -> None:
    found = reading(TWO)
    found.things[0, [0, 1], 1] = found.things[0, [1, 0], 1].clone()
    assert evaluate.accuracy(found, TWO)["all"].value == 0.0


def test_a_missing_or_superfluous_object_counts() -> None:
    for sure in ([1.0, 0.2, 0.0], [1.0, 1.0, 0.9]):
        found = reading(TWO)
        found.sure[0] = torch.tensor(sure)
        figures = evaluate.accuracy(found, TWO)
        assert (figures["count"].value, figures["all"].value) == (0.0, 0.0)


def test_agreement_compares_two_clips_and_not_the_prompt() -> None:
    before, after = reading(ONE), reading(ONE)
    for found in (before, after):
        found.things[0, 0, 0] = 6
    figures = evaluate.agreement(before, after, ONE)
    assert figures["kept"].value == 1.0
    assert figures["track_3%"].value == 1.0
    after.tracks[0, 0, :, 0] += 0.05
    after.setting[0, 0] = 0
    figures = evaluate.agreement(before, after, ONE)
    assert figures["track"].value == pytest.approx(0.05, abs=1e-4)
    assert (figures["track_3%"].value, figures["background"].value, figures["shape"].value) == (0.0, 0.0, 1.0)


def test_a_rendered_path_has_no_trajectory_error_and_another_motion_has() -> None:
    scenes = [Scene((Thing("circle", "red", motion=motion),)) for motion in ("left", "bounce", "zigzag", "clockwise")]
    assert evaluate.trajectory_error(reading(scenes, seed=9), scenes).value < 0.02
    other = [Scene((Thing("circle", "red", motion="right"),))] * 4
    assert evaluate.trajectory_error(reading(scenes, seed=9), other).value > 0.05


def test_flicker_is_zero_for_what_moves_evenly_and_high_for_noise() -> None:
    ramp = np.broadcast_to(np.arange(24, dtype=np.uint8)[:, None, None, None] * 5, (24, 8, 8, 3))
    noise = np.random.default_rng(0).integers(0, 255, (24, 8, 8, 3)).astype(np.uint8)
    assert evaluate.flicker([ramp]).value == 0.0
    assert evaluate.flicker([noise]).value > 50


def test_the_distance_between_two_sets_of_one_distribution_is_small() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 400, 20))
    assert frechet(one, other, 8) < 0.3
    assert frechet(one + 1.0, other, 8) > 2.0
    assert frechet(one * 3.0, other, 8) > 2.0


def test_diversity_is_a_share_of_the_renders_own() -> None:
    real = reading(ONE * 4)
    same = Seen(real.things, real.sure, real.setting, real.tracks, torch.zeros(4, 16))
    assert evaluate.diversity([real], [real])["diversity"].value == pytest.approx(1.0)
    assert evaluate.diversity([same], [real])["diversity"].value == 0.0


def test_held_out_prompts_are_of_held_out_combinations_and_the_same_every_time() -> None:
    one = asked(60, 1, novel=True)
    assert all(held_out(scene) for scene in one.scenes)
    assert one == asked(60, 1, novel=True)
    assert asked(60, 1, novel=True, held=True).scenes == one.scenes
    assert asked(60, 1, novel=True, held=True).prompts != one.prompts
    assert isinstance(one.first(3), Asked)
    assert len(one.first(3)) == 3


def test_truth_is_keyed_by_colour() -> None:
    batch = scene_batch(TWO, 0)
    wanted = truth(batch)
    red, blue = COLOURS.index("red"), COLOURS.index("blue")
    assert wanted.present.nonzero().tolist() == [[0, red], [0, blue]]
    assert wanted.things[0, blue].tolist() == list(TWO[0].things[1].indices())
    path = trajectory(batch, clip_times(FRAMES))
    assert torch.equal(wanted.tracks[0, blue, :, 0], path.x[0, 1])


@pytest.mark.parametrize(("frames", "side"), [(8, 64), (24, 128), (24, 256)])
def test_the_judge_sees_every_size_at_the_same_instants(frames: int, side: int) -> None:
    batch = scene_batch(TWO, 0)
    wanted = judge_input(render(batch, 8, 64, 64).clip)
    seen = judge_input(render(batch, frames, side, side).clip)
    assert seen.shape == (1, FRAMES, 64, 64, 3)
    assert float((seen - wanted).abs().mean()) < 0.03


def test_the_judge_reads_a_batch_into_fields_of_the_stated_shapes() -> None:
    seen = hard(Judge().eval()(torch.zeros(2, FRAMES, 64, 64, 3)))
    assert seen.things.shape == (2, MAX_OBJECTS, 5)
    assert seen.tracks.shape == (2, MAX_OBJECTS, FRAMES, 3)
    assert seen.setting.shape == (2, 3)
    assert len({int(colour) for colour in seen.things[0, :, 1]}) == MAX_OBJECTS


def test_a_window_is_cut_out_around_its_object_at_its_size() -> None:
    scene = Scene((Thing("circle", "white", "big", motion="right"), Thing("circle", "white", "small", motion="left")))
    batch = scene_batch([scene], 2)
    masks = render(batch, FRAMES, 64, 64).masks  # (1, 3, T, 64, 64)
    path = trajectory(batch, clip_times(FRAMES))
    tracks = torch.stack([path.x, path.y, path.radius], dim=-1)[:, :2]  # (1, 2, T, 3)
    windows = cut_out(masks[0].transpose(0, 1)[None], tracks)  # (2 * T, 3, 9, 9)
    for slot in range(2):
        inside = windows.view(2, FRAMES, 3, 9, 9)[slot, :, slot]
        assert float(inside[:, 4, 4].min()) > 0.95  # the middle
        assert float(inside[:, 4, 2].min()) > 0.9  # 0.7 radii to the left
        assert float(inside[:, 0, 0].max()) < 0.05  # a corner
        assert 0.24 < float(inside.mean()) < 0.34  # 21 of the 81 samples lie within 0.95 radii, four on the edge


def test_a_movement_is_told_apart_from_its_place_and_size() -> None:
    path = torch.stack([torch.linspace(0.2, 0.5, 8), torch.full((8,), 0.4), torch.full((8,), 0.1)], dim=-1)[None, None]
    moved = path + torch.tensor([0.3, 0.2, 0.0])
    doubled = path * torch.tensor([1.0, 1.0, 2.0])
    moves, size = told_apart(path)
    for other in (moved, doubled):
        assert torch.allclose(told_apart(other)[0], moves, atol=1e-5)
    assert torch.allclose(told_apart(moved)[1], size)
    assert float(told_apart(doubled)[1] - size) > 1.0


def test_training_looks_at_the_objects_that_are_there() -> None:
    present = torch.zeros(2, 12, dtype=torch.bool)
    present[0, [3, 7]] = True
    present[1, 11] = True
    colours = true_colours(present)
    assert set(colours[0, :2].tolist()) == {3, 7}
    assert colours[1, 0] == 11
    values = torch.arange(24).view(2, 12)[..., None]
    assert picked(values, colours)[1, 0].item() == 12 + 11


def test_the_interval_is_wilsons() -> None:
    found = share(8, 10)
    assert (found.value, found.n) == (0.8, 10)
    assert found.low == pytest.approx(0.490, abs=2e-3)
    assert found.high == pytest.approx(0.943, abs=2e-3)
    assert share(0, 5).low == 0.0
    assert share(5, 5).high == 1.0


def test_a_mean_has_the_interval_of_its_standard_error() -> None:
    found = mean([1.0, 2.0, 3.0, 4.0])
    assert found.value == 2.5
    assert found.high - found.value == pytest.approx(1.96 * np.std([1, 2, 3, 4], ddof=1) / 2)


def test_opinion_spans_its_scale_and_rewards_size() -> None:
    def opinion(value: float, side: int) -> float:
        return mean_opinion({"mean": Figure(value, value, value, 9)}, side).value

    assert opinion(1.0, 256) == 5.0
    assert opinion(1.0, 128) == 4.5
    assert opinion(0.0, 256) == 1.0


@pytest.mark.parametrize(("clips", "rows"), [(2, [2]), (3, [3]), (8, [3, 3])])
def test_clips_fill_whole_rows(clips: int, rows: list[int]) -> None:
    made = report.in_rows([np.zeros((1, 1, 1, 3), np.uint8)] * clips, 3)
    assert [len(row) for row in made] == rows


def test_a_contact_sheet_puts_rows_under_each_other() -> None:
    clip = np.zeros((24, 128, 128, 3), dtype=np.uint8)
    sheet: Any = report.contact_sheet([[clip, clip], [clip, clip]], 4, 32)
    assert sheet.shape == (2 * (32 + 4), 2 * (4 * 32 + 4), 3)


def test_only_the_surroundings_change_elsewhere() -> None:
    scene = Scene((Thing("star", "red", motion="left"),), "sea", "pan", "night")
    assert evaluate.elsewhere(scene) == Scene(scene.things, "meadow", "pan", "day")


def test_the_quality_table_tries_every_plan_of_a_model_at_the_same_sizes_and_the_defaults_among_them() -> None:
    assert draft_ways(Recipe(4, 1.0, 128)) == [Way("draft", steps, 128) for steps in (1, 2, 4)]
    ways = final_ways(Recipe(12, 1.5, 256), 4, (256, 128))
    assert len(ways) == len(set(ways)) == 10
    assert {(way.plan, way.side) for way in ways} == {
        (plan, side) for plan in ("cloud", "refine") for side in (256, 128)
    }
    assert {Way("cloud", 12, 128), Way("refine", 4, 256)} <= set(ways)


def test_a_card_has_the_lines_of_its_models_quality_table() -> None:
    parts = {"mean": Figure(0.9, 0.8, 0.95, 26), "shape": Figure(1.0, 0.9, 1.0, 26)}
    (score,) = card_scores([Scored(Way("refine", 4, 128), parts)])
    assert (score.plan, score.steps, score.width, score.height, score.accuracy.value) == ("refine", 4, 128, 128, 0.9)
    assert score.mos.value == pytest.approx(1 + 4 * 7 / 8 * 0.9)
    assert report.plain(Scored(Way("refine", 4, 128), parts))["accuracy"]["shape"]["value"] == 1.0
