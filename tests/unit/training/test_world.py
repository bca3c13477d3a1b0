"""The renderer: what the attributes say is what the pixels show."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="the training extra (torch) is not installed")

from training.grammar import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, Attributes  # noqa: E402
from training.world import PALETTE, render, scene_batch, trajectory  # noqa: E402


def draw(scene: Attributes, frames: int = 8, side: int = 64, seed: int = 1) -> NDArray[Any]:
    clip: NDArray[Any] = render(scene_batch([scene], seed), frames, side, side)[0].numpy()
    return clip


def centre_of_object(scene: Attributes) -> NDArray[Any]:
    """(T, 2) row and column of the pixels that differ from the same scene in another colour."""
    other = Attributes(
        scene.shape, "white" if scene.colour != "white" else "red", scene.size, scene.motion, scene.background
    )
    differs = (draw(scene).astype(int) != draw(other)).any(axis=-1)  # (T, H, W)
    return np.array([np.argwhere(frame).mean(axis=0) for frame in differs])


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others() -> None:
    scene = Attributes("star", "blue", "big", "left", "desert")
    np.testing.assert_array_equal(draw(scene), draw(scene))
    assert (draw(scene) != draw(scene, seed=2)).any()


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "ring"])
def test_the_middle_of_a_still_object_has_its_colour(colour: str, shape: str) -> None:
    pixel = draw(Attributes(shape, colour, "big", "still", "plain"))[0, 32, 32] / 255.0
    nearest = int(np.linalg.norm(PALETTE.numpy() * 0.92 - pixel, axis=1).argmin())
    assert COLOURS[nearest] == colour


@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_straight_motions_go_where_they_say(motion: str, axis: int, sign: int) -> None:
    path = centre_of_object(Attributes("circle", "red", "small", motion, "plain"))
    travelled = path[-1] - path[0]
    assert travelled[axis] * sign > 15
    assert abs(travelled[1 - axis]) < 3


def test_a_still_object_stays_and_a_growing_one_grows() -> None:
    still = centre_of_object(Attributes("square", "red", "big", "still", "plain"))
    assert np.abs(still - still[0]).max() < 0.5
    scenes = scene_batch([Attributes("square", "red", "big", "grow", "plain")], 0)
    radius = trajectory(scenes, torch.tensor([0.1, 0.5, 0.9]))[2][0]
    assert radius[0] < radius[1] < radius[2]


def test_objects_stay_inside_the_frame() -> None:
    scenes = scene_batch([Attributes("ring", "red", "big", motion, "sea") for motion in MOTIONS] * 20, 5)
    x, y, radius = trajectory(scenes, torch.linspace(0, 1, 24))
    for centre in (x, y):
        assert float((centre - radius).min()) > -0.08
        assert float((centre + radius).max()) < 1.08


def test_backgrounds_and_shapes_are_distinct() -> None:
    views = [draw(Attributes("circle", "red", "small", "still", name)).astype(int) for name in BACKGROUNDS]
    figures = [draw(Attributes(name, "red", "big", "still", "plain")).astype(int) for name in SHAPES]
    for group, least in ((views, 10.0), (figures, 2.0)):
        for i, one in enumerate(group):
            for other in group[:i]:
                assert np.abs(one - other).mean() > least


def test_low_frames_show_the_instants_of_the_high_ones() -> None:
    scenes = scene_batch([Attributes("heart", "pink", "medium", "right", "night")], 3)
    low = render(scenes, 8, 64, 64)
    high = render(scenes, 24, 64, 64)[:, 1::3]
    assert torch.equal(low, high)
    assert torch.equal(render(scenes, 24, 64, 64, only=[1, 4]), low[:, :2])
