"""What planner, finder and base are taught about where things are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training extra (torch) is not installed")

from adaptivegen.errors import InvalidRequest  # noqa: E402
from core_cloud.models.finder import Finder, FinderParams  # noqa: E402
from core_cloud.models.reader import OBJECT_SLOTS, SLOTS  # noqa: E402
from training.data import (  # noqa: E402
    CELL,
    LOW_FRAMES,
    LOW_SIZE,
    Dataset,
    beginnings,
    draw_scenes,
    load,
    render_low,
    save_scenes,
    to_unit,
)
from training.fit import step_generator  # noqa: E402
from training.train_base import LARGEST_WEIGHT, MEDIUM_RADIUS, object_weight  # noqa: E402
from training.train_finder import finder_loss  # noqa: E402
from training.train_judge import rendered  # noqa: E402
from training.train_layout import LOST, planner_loss  # noqa: E402
from training.world import clip_times, layouts, render, scene_batch  # noqa: E402


def dataset(count: int, objects: int = 1) -> Dataset:
    """Rendered scenes; their slots are noise of their own, as different as captions."""
    scenes = scene_batch(draw_scenes(count, 3, objects=(objects,)), 3)
    made = render(scenes, LOW_FRAMES, LOW_SIZE, LOW_SIZE)
    slots = torch.randn(count, 2, SLOTS, 192, generator=torch.Generator().manual_seed(5)).half()
    coverage = torch.zeros(count, OBJECT_SLOTS, LOW_FRAMES, LOW_SIZE // CELL, LOW_SIZE // CELL, dtype=torch.uint8)
    return Dataset(scenes, [["", ""]] * count, made.clip, coverage, slots)


class Watching:
    """Stands where the planner does and keeps what it is told."""

    def __call__(self, noisy: Any, t: Any, slots: Any, known: Any, told: Any) -> Any:
        self.clean, self.known, self.told = noisy, known, told
        return noisy * 0


def test_the_planner_is_told_of_objects_that_are_there_in_known_frames_only() -> None:
    data, planner = dataset(40, objects=2), Watching()
    shares = []
    for step in range(100):
        planner_loss(planner, data, torch.arange(40), step_generator(1, step, "cpu"))  # type: ignore[arg-type]
        assert not planner.told[:, OBJECT_SLOTS:].any()  # the ground
        assert not planner.told[:, 2:].any()  # the third object, which is not there
        frames = planner.told.amax(1)  # (40, T)
        halves = (frames == (torch.arange(8) < 4).float()).all(1)  # of later clips, all of whose objects are found
        seen = planner.told[~halves, :2].transpose(1, 2)[frames[~halves] > 0]
        shares.append(seen.flatten())
    # Of the clips that begin at the beginning and of which at least one object was found.
    assert float(torch.cat(shares).mean()) == pytest.approx((1 - LOST) / (1 - LOST**2), abs=0.04)


def test_the_finder_learns_where_things_are_in_every_frame_and_that_strangers_are_not_there() -> None:
    torch.manual_seed(0)
    data, finder = dataset(8), Finder(FinderParams(channels=32))
    optimiser = torch.optim.Adam(finder.parameters(), lr=4e-3)
    rows = torch.arange(8)
    for step in range(150):
        optimiser.zero_grad()
        finder_loss(finder, data, rows, step_generator(2, step, "cpu")).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    truth = data.layouts(rows)[:, 0]  # (8, T, LAYOUT_VALUES)
    with torch.no_grad():
        found = finder.eval()(data.frames(rows), data.text(rows, rows * 0))[:, 0]
        strange = finder(data.frames(rows), data.text(rows.roll(1), rows * 0))[:, 0]
    assert (found[..., :2] - truth[..., :2]).norm(dim=-1).mean() < 0.05
    assert (truth[:, 0, :2] - truth[:, -1, :2]).norm(dim=-1).max() > 0.2  # they do move
    assert (found[..., 5] > 0).float().mean() > 0.9
    assert (strange[..., 5] > 0).float().mean() < 0.3


def test_pixels_of_small_objects_count_more_within_bounds() -> None:
    radius = torch.tensor([0.05, MEDIUM_RADIUS / 1.5, MEDIUM_RADIUS, 0.3])
    shares = torch.zeros(4, OBJECT_SLOTS, 1, 2, 2)
    shares[:, 0, 0, 0, 0], shares[:, 0, 0, 0, 1] = 1.0, 0.5
    weight = object_weight(shares, radius[:, None, None].expand(4, OBJECT_SLOTS, 1))
    assert weight[:, 0, 0, 0].tolist() == pytest.approx([LARGEST_WEIGHT, 1.5, 1.0, 0.75])
    assert weight[:, 0, 0, 1].tolist() == pytest.approx([LARGEST_WEIGHT / 2, 0.75, 0.5, 0.375])
    assert not weight[:, 0, 1].any()


def test_clips_that_go_on_with_others_begin_after_the_beginning_and_half_of_them_in_the_middle() -> None:
    begin = beginnings(2000, torch.Generator().manual_seed(1))
    assert 0.0 < float(begin.min()) < 0.05
    assert float(begin.max()) == 0.5
    assert float((begin == 0.5).float().mean()) == pytest.approx(0.5, abs=0.04)


def test_some_of_the_clips_that_the_judge_learns_from_begin_later_and_are_rendered_so() -> None:
    clips, scenes = rendered(6, 3, later=0.5)
    assert (scenes.begin > 0).tolist() == [False] * 3 + [True] * 3
    whole, _ = rendered(6, 3)
    assert torch.equal(clips[:3], whole[:3])
    assert (clips[3:] != whole[3:]).flatten(1).any(1).all()


def test_a_set_of_clips_on_disk_ends_with_those_that_begin_later(tmp_path: Path) -> None:
    scenes = scene_batch(draw_scenes(4, 3), 3)
    scenes.begin[3:] = 0.5
    render_low(scenes, tmp_path, lambda name, share: None)
    save_scenes(scenes, tmp_path)
    (tmp_path / "captions.json").write_text(json.dumps([["", ""]] * 4))
    np.save(tmp_path / "slots.npy", np.zeros((4, 2, SLOTS, 192), np.float16))
    data, rows = load(tmp_path), torch.arange(4)
    assert data.later(rows).tolist() == [False, False, False, True]
    assert torch.equal(data.layouts(rows), layouts(scenes, clip_times(LOW_FRAMES)))
    assert torch.equal(data.frames(rows), to_unit(render(scenes, LOW_FRAMES, LOW_SIZE, LOW_SIZE).clip))


def test_a_set_of_clips_of_an_older_version_is_refused_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "scenes.npz", things=np.zeros((1, 3, 5)), setting=np.zeros((1, 3)), jitter=np.zeros((1, 12)))
    with pytest.raises(InvalidRequest, match=r"scenes\.npz.*begin"):
        load(tmp_path)
