"""Scenes: what is drawn, and what is kept from training."""

import random

import pytest

from training.grammar import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    LIGHTINGS,
    MOTIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    Thing,
    held_out,
    held_out_motion,
    held_out_pair,
    sample_scene,
)


def drawn(count: int, novel: bool | None = False, seed: int = 0) -> list[Scene]:
    rng = random.Random(seed)
    return [sample_scene(rng, novel=novel) for _ in range(count)]


def test_every_value_and_every_number_of_objects_is_drawn() -> None:
    scenes = drawn(3000)
    things = [thing for scene in scenes for thing in scene.things]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3}
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.size for thing in things} == set(SIZES)
    assert {thing.texture for thing in things} == set(TEXTURES)
    assert {thing.motion for thing in things} == set(MOTIONS)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {scene.camera for scene in scenes} == set(CAMERAS)
    assert {scene.lighting for scene in scenes} == set(LIGHTINGS)


def test_the_same_seed_gives_the_same_scenes() -> None:
    assert drawn(50, seed=3) == drawn(50, seed=3)
    assert drawn(50, seed=3) != drawn(50, seed=4)


def test_training_scenes_hold_nothing_that_is_held_out() -> None:
    assert not any(held_out(scene) for scene in drawn(3000))


def test_novel_scenes_hold_only_what_is_held_out() -> None:
    for scene in drawn(300, novel=True):
        for thing in scene.things:
            new_pair = held_out_pair(thing.shape, thing.colour)
            assert new_pair or held_out_motion(thing.motion, scene.background)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_held_out_in_some_colours_and_trained_in_most(shape: str) -> None:
    held = [colour for colour in COLOURS if held_out_pair(shape, colour)]
    assert 1 <= len(held) <= 2


def test_colours_differ_within_a_scene_because_the_judge_tells_objects_by_them() -> None:
    for scene in drawn(2000, novel=None):
        assert len({thing.colour for thing in scene.things}) == len(scene.things)


def test_nothing_is_asked_for_that_cannot_be_seen() -> None:
    for scene in drawn(3000, novel=None):
        for thing in scene.things:
            assert not (thing.motion == "spin" and thing.shape in ("circle", "ring"))
            assert not (thing.size == "small" and thing.texture != "plain")


def test_indices_are_places_in_the_tuples() -> None:
    assert Thing("ring", "black", "big", "dotted", "still").indices() == (7, 11, 2, 2, 13)
    assert Scene((), "plain", "zoom", "night").indices() == (9, 2, 2)
