"""Scenes and their sentences."""

import random

from training.grammar import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    Attributes,
    plain_caption,
    sample_attributes,
    sample_caption,
)


def test_the_example_of_the_readme_is_a_sentence_of_the_grammar() -> None:
    scene = Attributes("circle", "red", "medium", "left", "sunset")
    assert plain_caption(scene) == "a red circle moves left over a sunset sky"


def test_articles_fit() -> None:
    assert plain_caption(Attributes("square", "orange", "medium", "up", "sea")).startswith("an orange square")


def test_the_same_seed_gives_the_same_scenes_and_sentences() -> None:
    def draw(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [sample_caption(sample_attributes(rng), rng) for _ in range(50)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_every_value_is_drawn() -> None:
    rng = random.Random(0)
    scenes = [sample_attributes(rng) for _ in range(2000)]
    assert {s.shape for s in scenes} == set(SHAPES)
    assert {s.colour for s in scenes} == set(COLOURS)
    assert {s.size for s in scenes} == set(SIZES)
    assert {s.motion for s in scenes} == set(MOTIONS)
    assert {s.background for s in scenes} == set(BACKGROUNDS)


def test_a_sentence_names_the_colour_and_is_tidy() -> None:
    rng = random.Random(1)
    for _ in range(500):
        scene = sample_attributes(rng)
        caption = sample_caption(scene, rng)
        assert scene.colour in caption.split()
        assert caption == " ".join(caption.split())
        assert not caption.startswith(",")
        assert not caption.endswith((",", " that"))


def test_opposite_motions_never_share_a_sentence() -> None:
    left = {sample_caption(Attributes("ring", "red", "big", "left", "sea"), random.Random(i)) for i in range(200)}
    right = {sample_caption(Attributes("ring", "red", "big", "right", "sea"), random.Random(i)) for i in range(200)}
    assert not left & right


def test_indices_point_back_to_the_words() -> None:
    scene = Attributes("star", "pink", "big", "orbit", "city")
    shape, colour, size, motion, background = scene.indices()
    assert (SHAPES[shape], COLOURS[colour], SIZES[size], MOTIONS[motion], BACKGROUNDS[background]) == (
        "star",
        "pink",
        "big",
        "orbit",
        "city",
    )
