"""The renderer: what the attributes say is what the pixels and the ground truth show."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the training extra (torch) is not installed")
F = torch.nn.functional

from core_cloud.models.layout import GROUND_RADIUS, THING_VALUES  # noqa: E402
from training.grammar import BACKGROUNDS, CAMERAS, COLOURS, LIGHTINGS, MOTIONS, SHAPES, Scene, Thing  # noqa: E402
from training.world import (  # noqa: E402
    PALETTE,
    clip_times,
    layouts,
    render,
    scene_batch,
    trajectory,
)


def one(shape: str = "circle", colour: str = "red", motion: str = "still", **other: str) -> Scene:
    setting = {name: other.pop(name) for name in ("background", "camera", "lighting") if name in other}
    return Scene((Thing(shape, colour, motion=motion, **other),), **setting)


def draw(scene: Scene, frames: int = 8, side: int = 64, seed: int = 1) -> NDArray[Any]:
    clip: NDArray[Any] = render(scene_batch([scene], seed), frames, side, side).clip[0].numpy()
    return clip


def centres(scene: Scene, frames: int = 8, side: int = 64) -> NDArray[Any]:
    """(T, 2) row and column of the middle of the first object's mask."""
    masks = render(scene_batch([scene], 1), frames, side, side).masks[0, 0].numpy()
    grid = np.mgrid[0:side, 0:side]
    return np.array([[float((mask * axis).sum() / mask.sum()) for axis in grid] for mask in masks])


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others() -> None:
    scene = one("star", "blue", "left", size="big", background="desert")
    np.testing.assert_array_equal(draw(scene), draw(scene))
    assert (draw(scene) != draw(scene, seed=2)).any()


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "ring"])
def test_the_middle_of_a_still_object_has_its_colour(colour: str, shape: str) -> None:
    scene = one(shape, colour, size="big")
    row, column = centres(scene)[0].round().astype(int)
    pixel = draw(scene)[0, row, column] / 255.0
    assert COLOURS[int(np.linalg.norm(PALETTE.numpy() - pixel, axis=1).argmin())] == colour


@pytest.mark.parametrize(
    ("motion", "direction"),
    [
        ("left", (0, -1)),
        ("right", (0, 1)),
        ("up", (-1, 0)),
        ("down", (1, 0)),
        ("diagonal-up", (-1, 1)),
        ("diagonal-down", (1, 1)),
    ],
)
def test_straight_motions_go_where_they_say(motion: str, direction: tuple[int, int]) -> None:
    path = centres(one(motion=motion))
    travelled = path[-1] - path[0]
    for moved, sign in zip(travelled, direction, strict=True):
        assert moved * sign > 15 if sign else abs(moved) < 1


@pytest.mark.parametrize(("motion", "sign"), [("clockwise", 1), ("anticlockwise", -1)])
def test_orbits_turn_the_way_they_say(motion: str, sign: int) -> None:
    path = centres(one(motion=motion))
    arms = path - path.mean(0)
    # Rows point down, so a clockwise turn has a positive cross product of (column, row) arms.
    turns = [a[1] * b[0] - a[0] * b[1] for a, b in itertools.pairwise(arms)]
    assert all(turn * sign > 0 for turn in turns)


def test_motions_that_change_size_or_angle_keep_the_place() -> None:
    tau = torch.tensor([0.1, 0.5, 0.9])
    batch = scene_batch([one("square", motion=motion) for motion in ("grow", "shrink", "spin", "still")], 0)
    path = trajectory(batch, tau)
    assert torch.equal(path.x[:, 0, 0], path.x[:, 0, 2])
    grow, shrink, spin, still = path.radius[:, 0]
    assert grow[0] < grow[1] < grow[2]
    assert shrink[0] > shrink[1] > shrink[2]
    assert spin[0] == spin[2]
    assert still[0] == still[2]
    assert path.angle[2, 0, 2] > path.angle[2, 0, 0]
    assert path.angle[3].abs().max() == 0


def turns(path: NDArray[Any]) -> int:
    """How often a movement along one axis reverses."""
    steps = np.diff(path)
    signs = np.sign(steps[np.abs(steps) > 1e-3])
    return int((np.diff(signs) != 0).sum())


def test_bounces_go_up_and_down_twice_and_zigzags_weave_while_moving_right() -> None:
    bounce, zigzag = (centres(one(motion=name), frames=24) for name in ("bounce", "zigzag"))
    assert turns(bounce[:, 0]) == 3
    assert np.diff(zigzag[:, 1]).min() > 0
    assert turns(zigzag[:, 0]) == 4


def test_middles_stay_inside_the_frame() -> None:
    many = [Scene(tuple(Thing("ring", c, "big", "plain", m) for c in COLOURS[:n])) for m in MOTIONS for n in (1, 2, 3)]
    path = trajectory(scene_batch(many * 10, 5), torch.linspace(0, 1, 24))
    there = scene_batch(many * 10, 5).things[:, :, 0] >= 0
    for centre in (path.x, path.y):
        assert float(centre[there].min()) > 0.0
        assert float(centre[there].max()) < 1.0


def test_objects_of_a_scene_start_apart() -> None:
    scenes = [Scene(tuple(Thing("circle", colour) for colour in COLOURS[:3]))] * 50
    path = trajectory(scene_batch(scenes, 5), torch.tensor([0.5]))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        gap = torch.hypot(path.x[:, a] - path.x[:, b], path.y[:, a] - path.y[:, b])
        assert float((gap - path.radius[:, a] - path.radius[:, b]).min()) > 0.1


def test_layouts_say_where_the_masks_are_and_nothing_of_what_is_not_there() -> None:
    scenes = scene_batch([Scene((Thing("circle", "red", motion="spin"), Thing("circle", "blue", motion="grow")))], 3)
    layout, masks = layouts(scenes, clip_times(8))[0], render(scenes, 8, 96, 96).masks[0]
    line = (torch.arange(96) + 0.5) / 96
    for slot in range(2):
        area = masks[slot].sum((1, 2))
        x, y = ((masks[slot] * place).sum((1, 2)) / area for place in (line, line[:, None]))
        assert torch.allclose(layout[slot, :, 0], x, atol=0.01)
        assert torch.allclose(layout[slot, :, 1], y, atol=0.01)
        assert torch.allclose(layout[slot, :, 2], (area / torch.pi).sqrt() / 96, atol=0.01)
    assert layout[0, :, 3:5].norm(dim=-1).tolist() == pytest.approx([1.0] * 8)
    assert float(layout[0, -1, 3]) < -0.9  # a spin turns by half a turn
    assert not layout[2].any()


@pytest.mark.parametrize("move", ["pan", "zoom"])
def test_the_ground_of_a_layout_moves_as_the_picture_of_the_ground_does(move: str) -> None:
    scenes = scene_batch([one(background="desert", camera=move)], 1)
    ground, made = layouts(scenes, clip_times(8))[0, -1], render(scenes, 8, 96, 96)
    first, last = made.clip[0, [0, -1]].float()
    # Undo the move by the layout alone: look at the last frame where the ground of the first is by then.
    spot = (torch.arange(96) + 0.5) / 96
    across, down = (ground[-1, axis] + (spot - ground[0, axis]) * ground[-1, 2] / ground[0, 2] for axis in (0, 1))
    grid = torch.stack(torch.meshgrid(2 * across - 1, 2 * down - 1, indexing="xy"), dim=-1)
    objects = made.masks[0, 0, [0, -1]]
    layers = torch.cat([last.permute(2, 0, 1), objects[1:]])
    undone = F.grid_sample(layers[None], grid[None], align_corners=False)[0].permute(1, 2, 0)
    seen = (grid.abs() < 0.95).all(-1) & (objects[0] == 0) & (undone[..., 3] == 0)
    assert seen.float().mean() > 0.2
    assert (undone[..., :3] - first)[seen].abs().mean() < 0.35 * (last - first)[seen].abs().mean()


def test_the_ground_of_a_still_camera_stays() -> None:
    ground = layouts(scene_batch([one(background="desert")], 1), clip_times(8))[0, -1]
    assert torch.equal(ground, ground[:1].expand_as(ground))
    assert ground[0, :THING_VALUES].tolist() == [0.5, 0.5, GROUND_RADIUS, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_what_a_layout_says_of_the_ground_is_all_that_the_seed_leaves_open(background: str) -> None:
    scenes = scene_batch([one(background=background)] * 3, 4)
    layout = layouts(scenes, clip_times(4))
    lie = layout[:, -1, :, THING_VALUES:]
    assert not layout[:, :-1, :, THING_VALUES:].any()
    assert lie[..., -1].all()  # it is told
    assert not torch.allclose(lie[0], lie[1], atol=0.01)
    other = torch.rand_like(scenes.jitter).index_copy(1, torch.tensor([6, 7]), lie[:, 0, :-1] + 0.5)
    pair = [render(batch, 4, 48, 48) for batch in (scenes, replace(scenes, jitter=other))]
    bare = (pair[0].masks.sum(1) == 0) & (pair[1].masks.sum(1) == 0)
    assert bare.float().mean() > 0.5
    assert torch.equal(pair[0].clip[bare], pair[1].clip[bare])


def test_a_clip_that_begins_later_goes_on_where_the_other_was() -> None:
    scenes = [one(motion=motion, camera=camera) for motion in MOTIONS for camera in CAMERAS]
    whole = scene_batch(scenes, 4)
    later = scene_batch(scenes, 4, begin=0.5)
    first, second = (render(batch, 8, 32, 32).clip for batch in (whole, later))
    assert torch.equal(first[:, 4:], second[:, :4])
    assert torch.equal(layouts(whole, clip_times(8))[:, :, 4:], layouts(later, clip_times(8))[:, :, :4])
    assert float(trajectory(later, clip_times(8)).radius.min()) > 0.02
    assert later.take(slice(0, 2)).begin.tolist() == [0.5, 0.5]


def test_masks_are_the_visible_part_and_empty_where_there_is_no_object() -> None:
    scene = Scene((Thing("square", "red", "big", motion="right"), Thing("circle", "blue", "big", motion="left")))
    masks = render(scene_batch([scene] * 20, 3), 8, 64, 64).masks
    assert float(masks[:, :2].sum(1).max()) <= 1.0 + 1e-5
    assert float(masks[:, 2].max()) == 0.0
    assert float(masks[:, :2].amax(dim=(2, 3, 4)).min()) == 1.0


def test_the_mask_is_where_the_pixels_are() -> None:
    scene = one("heart", "green", size="big")
    other = Scene((replace(scene.things[0], colour="red"),))
    differs = (draw(scene).astype(int) != draw(other)).any(axis=-1)
    mask = render(scene_batch([scene], 1), 8, 64, 64).masks[0, 0].numpy()
    assert (differs == (mask > 0.02)).mean() > 0.995


@pytest.mark.parametrize("texture", ["striped", "dotted"])
def test_textures_show_on_every_shape(texture: str) -> None:
    for shape in SHAPES:
        plain, filled = (
            draw(one(shape, "yellow", size="big", texture=name)).astype(int) for name in ("plain", texture)
        )
        mask = render(scene_batch([one(shape, "yellow", size="big")], 1), 8, 64, 64).masks[0, 0].numpy() > 0.5
        assert np.abs(plain - filled)[mask].mean() > 8


def test_backgrounds_shapes_and_lightings_are_distinct() -> None:
    views = [draw(one(size="small", background=name)).astype(int) for name in BACKGROUNDS]
    lights = [draw(one(size="small", background="sea", lighting=name)).astype(int) for name in LIGHTINGS]
    figures = [draw(one(name, size="big")).astype(int) for name in SHAPES]
    for group, least in ((views, 10.0), (lights, 10.0), (figures, 2.0)):
        for i, first in enumerate(group):
            for other in group[:i]:
                assert np.abs(first - other).mean() > least


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_camera_shows_on_every_background_and_leaves_the_objects_in_place(background: str) -> None:
    scenes = [one(background=background, camera=camera) for camera in CAMERAS]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(draw(scenes[first]).astype(int) - draw(scenes[second])).mean() > 1.0
    masks = render(scene_batch(scenes, 1), 8, 64, 64).masks
    np.testing.assert_array_equal(centres(scenes[0]), centres(scenes[1]))
    assert masks.shape == (3, 3, 8, 64, 64)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_backgrounds_move_slowly(background: str) -> None:
    clip = draw(one(background=background, size="small"), side=48)
    assert 0.05 < np.abs(np.diff(clip.astype(int), axis=0)).mean() < 25


def test_low_frames_show_the_instants_of_the_high_ones() -> None:
    scenes = scene_batch([one("heart", "pink", "right", background="city")], 3)
    low, high = render(scenes, 8, 64, 64).clip, render(scenes, 24, 64, 64).clip[:, 1::3]
    assert torch.equal(low, high)
    assert torch.equal(render(scenes, 24, 64, 64, only=[1, 4]).clip, low[:, :2])


def test_every_size_shows_the_same_scene() -> None:
    scenes = scene_batch([one("cross", "blue", "up", size="big", background="desert")], 3)
    small, large = render(scenes, 4, 48, 48).clip.float(), render(scenes, 4, 96, 96).clip.float()
    shrunk = large.reshape(1, 4, 48, 2, 48, 2, 3).mean((3, 5))
    assert float((small - shrunk).abs().mean()) < 4


def test_times_are_the_middles_of_their_intervals() -> None:
    assert clip_times(4).tolist() == [0.125, 0.375, 0.625, 0.875]
