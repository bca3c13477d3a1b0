"""The path, the loss, and what a training clip is given."""

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the training extra (torch) is not installed")

from core_cloud.models.layout import LAYOUT_VALUES, THING_VALUES  # noqa: E402
from core_cloud.models.reader import SLOTS  # noqa: E402
from core_cloud.models.video import Conditions  # noqa: E402
from training.distil import DistilSettings, intervals, teacher_target  # noqa: E402
from training.flow import THING_UNTOLD, known_frames, noised, open_layouts, sample_t, velocity_loss  # noqa: E402


def test_the_path_starts_at_the_noise_and_ends_at_the_clip() -> None:
    clip, noise = torch.randn(2, 2, 8, 4, 4, 3).unbind(0)
    assert torch.equal(noised(clip, noise, torch.zeros(2)), noise)
    assert torch.equal(noised(clip, noise, torch.ones(2)), clip)


def test_a_perfect_prediction_has_no_loss_and_errors_near_the_clip_weigh_more() -> None:
    clip = torch.randn(2, 8, 4, 4, 3)
    assert velocity_loss(clip, clip, torch.tensor([0.2, 0.9])).item() == 0.0
    wrong = clip + 0.1
    assert velocity_loss(wrong, clip, torch.full((2,), 0.6)) > velocity_loss(wrong, clip, torch.full((2,), 0.1))


def test_weighted_pixels_weigh_more() -> None:
    clip = torch.zeros(1, 8, 4, 4, 3)
    wrong = clip.clone()
    wrong[:, :, :2] = 0.1
    weight = torch.ones(1, 8, 4, 4, 1)
    weight[:, :, :2] = 4.0
    t = torch.tensor([0.3])
    assert velocity_loss(wrong, clip, t, weight).item() == pytest.approx(4 * velocity_loss(wrong, clip, t).item())


def test_times_lie_in_the_path_and_start_often_enough_at_noise() -> None:
    t = sample_t(4000, torch.Generator().manual_seed(0))
    assert t.min() == 0.0
    assert t.max() < 1.0
    assert 0.05 < float((t == 0).float().mean()) < 0.3


def test_known_frames_are_those_of_the_tasks() -> None:
    masks = known_frames(torch.zeros(4000, dtype=torch.bool), 8, torch.Generator().manual_seed(0))
    assert set(masks.flatten().tolist()) == {0.0, 1.0}
    kinds = [tuple(int(value) for value in mask) for mask in masks]
    none, first, ends = (0,) * 8, (1,) + (0,) * 7, (1, *(0,) * 6, 1)
    half = (1,) * 4 + (0,) * 4
    shares = {kind: kinds.count(kind) / 4000 for kind in (none, first, ends, half)}
    assert shares[none] == pytest.approx(0.70, abs=0.03)
    assert shares[first] == pytest.approx(0.10, abs=0.02)
    assert shares[ends] == pytest.approx(0.07, abs=0.02)
    assert shares[half] > 0.04
    lengths = {sum(kind) for kind in kinds if kind[:2] == (1, 1) and kind == tuple(sorted(kind, reverse=True))}
    assert lengths >= {2, 3, 4, 5, 6}
    assert not any(kind == (1,) * 8 for kind in kinds if kind == tuple(sorted(kind, reverse=True)) and sum(kind) > 7)


def test_layouts_are_open_now_and_then_and_oftener_where_frames_are_known() -> None:
    layouts, mask = torch.ones(2000, SLOTS, 8, LAYOUT_VALUES), torch.zeros(2000, 8)
    mask[:500, 0] = 1.0
    made = open_layouts(layouts, mask, 0.1, torch.Generator().manual_seed(0))
    kept = made[:, :-1].flatten(1)
    assert float(kept[:500].amax(1).mean()) == pytest.approx(0.6, abs=0.06)
    assert float(kept[500:].amax(1).mean()) == pytest.approx(0.9, abs=0.03)
    rows = made[..., :THING_VALUES].flatten(2)  # (2000, SLOTS, values)
    assert (rows.amin(2) == rows.amax(2)).all()
    things, ground = rows[:, :-1, 0], rows[:, -1, 0]
    told = things.amax(1)
    assert not (ground > told).any()  # an open layout says nothing of the ground
    assert float(things[told > 0].mean()) == pytest.approx(1 - THING_UNTOLD, abs=0.02)
    assert float(ground[:500].mean() / told[:500].mean()) == pytest.approx(0.6, abs=0.08)
    assert float(ground[500:].mean() / told[500:].mean()) == pytest.approx(0.9, abs=0.03)


def test_where_the_grounds_layers_lie_is_told_where_no_frame_shows_them() -> None:
    layouts, mask = torch.ones(400, SLOTS, 8, LAYOUT_VALUES), torch.zeros(400, 8)
    mask[:200, 0] = 1.0
    made = open_layouts(layouts, mask, 0.1, torch.Generator().manual_seed(0))[:, -1]
    assert not made[:200, :, THING_VALUES:].any()
    assert torch.equal(made[200:, :, THING_VALUES], made[200:, :, 0])
    assert made[:200, :, 0].any()


def test_clips_that_begin_later_are_given_their_first_half() -> None:
    later = torch.arange(1000) % 2 == 0
    masks = known_frames(later, 8, torch.Generator().manual_seed(0))
    assert torch.equal(masks[later], torch.tensor([1.0] * 4 + [0.0] * 4).expand(500, 8))
    assert float(masks[~later].amax(1).mean()) == pytest.approx(0.3, abs=0.06)


def test_intervals_are_the_steps_of_the_schedules() -> None:
    t, s = intervals(500, (4, 2, 1), torch.Generator().manual_seed(0))
    pairs = set(zip(t.tolist(), s.tolist(), strict=True))
    assert pairs == {(0.0, 1.0), (0.0, 0.5), (0.5, 1.0), (0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)}


def conditions(known: Any, mask: Any) -> Conditions:
    count = len(known)
    return Conditions(
        torch.zeros(count, SLOTS, 192), torch.ones(count), torch.zeros(count, SLOTS, 8, LAYOUT_VALUES), known, mask
    )


def exact_teacher(clip: Any) -> Any:
    """A teacher that always knows the clip, with or without text."""

    def predict(z: Any, t: Any, given: Conditions) -> Any:
        return clip.repeat(len(z) // len(clip), 1, 1, 1, 1), None

    return predict


def test_a_teacher_that_knows_the_clip_teaches_the_clip_for_every_interval() -> None:
    clip = torch.rand(3, 8, 4, 4, 3) * 2 - 1
    t, s = torch.tensor([0.0, 0.25, 0.5]), torch.tensor([1.0, 0.5, 1.0])
    z = noised(clip, torch.randn_like(clip), t)
    given = conditions(clip, torch.zeros(3, 8))
    target = teacher_target(exact_teacher(clip), z, t, s, given, DistilSettings(steps=1, substeps=3))
    assert torch.allclose(target, clip, atol=1e-4)


def test_guidance_is_taught_and_held_frames_are_kept() -> None:
    told, untold = torch.full((1, 8, 2, 2, 3), 0.2), torch.full((1, 8, 2, 2, 3), 0.1)

    def predict(z: Any, t: Any, given: Conditions) -> Any:
        return torch.where(given.keep[:, None, None, None, None] > 0, told, untold), None

    known, mask = torch.full((1, 8, 2, 2, 3), -0.5), torch.zeros(1, 8)
    mask[0, 0] = 1.0
    z = torch.randn(1, 8, 2, 2, 3)
    settings = DistilSettings(steps=1, guidance=3.0, substeps=1)
    target = teacher_target(predict, z, torch.zeros(1), torch.ones(1), conditions(known, mask), settings)
    assert target[0, 0].flatten().tolist() == pytest.approx([-0.5] * 12)
    assert target[0, 1].flatten().tolist() == pytest.approx([0.4] * 12)
