"""Sentences: tidy, naming what the scene holds, with wordings that training never sees."""

import random

import pytest

from training import captions
from training.captions import participle, plain_caption, sample_caption
from training.grammar import Scene, Thing, sample_scene

TABLES = (
    captions.SHAPE_WORDS,
    captions.COLOUR_WORDS,
    captions.SIZE_WORDS,
    captions.TEXTURE_WORDS,
    captions.MOTION_WORDS,
    captions.BACKGROUND_WORDS,
    captions.LIT_SKIES,
    captions.LIGHTING_WORDS,
    captions.CAMERA_WORDS,
)


def many(count: int, *, held: bool = False) -> list[tuple[Scene, str]]:
    rng = random.Random(1)
    scenes = [sample_scene(rng, novel=None) for _ in range(count)]
    return [(scene, sample_caption(scene, rng, held=held)) for scene in scenes]


def test_the_example_of_the_readme_is_a_sentence_of_the_grammar() -> None:
    scene = Scene((Thing("circle", "red", motion="left"),), "sky", lighting="dusk")
    assert plain_caption(scene) == "a red circle moves left over a sunset sky"


def test_articles_fit() -> None:
    assert plain_caption(Scene((Thing("square", "orange", motion="up"),))).startswith("an orange square")


def test_three_objects_are_named_in_order() -> None:
    things = (Thing("star", "red"), Thing("ring", "blue", "big", "dotted", "grow"), Thing("heart", "pink"))
    text = plain_caption(Scene(things, "sea", "pan", "night"))
    assert text == (
        "a red star stays still, a big dotted blue ring grows and a pink heart stays still in the sea at night, "
        "the camera pans"
    ).replace("in the sea", "over the sea")


def test_sentences_are_tidy() -> None:
    for held in (False, True):
        for _, text in many(1500, held=held):
            assert text == text.strip(" ,")
            assert "  " not in text
            assert " ," not in text
            assert ",," not in text
            assert "{" not in text


def test_a_sentence_names_every_object_by_a_word_of_its_shape_and_colour() -> None:
    for scene, text in many(1500):
        for thing in scene.things:
            assert any(word in text for word in captions.SHAPE_WORDS[thing.shape].seen)
            assert any(word in text for word in captions.COLOUR_WORDS[thing.colour].seen)


@pytest.mark.parametrize("table", TABLES)
def test_held_out_wordings_are_none_that_training_uses(table: dict[str, captions.Words]) -> None:
    seen = {word for words in table.values() for word in words.seen}
    held = [word for words in table.values() for word in words.held]
    assert held
    assert not seen & set(held)
    assert len(held) == len(set(held))


def test_training_sentences_hold_no_held_out_wording() -> None:
    # "plus" is within "plus sign", "aqua" within "aquamarine": compare what follows too.
    rare = ("crimson", "tangerine", "drifts west", "drifting west", "doughnut", "speckled", "at midnight", "cosmos")
    for _, text in many(3000):
        assert not any(word in text for word in rare)


def test_asked_for_held_out_wordings_are_used() -> None:
    scene = Scene((Thing("ring", "red", "big", "dotted", "left"),), "space", "zoom", "night")
    text = sample_caption(scene, random.Random(0), held=True)
    for word in ("doughnut", "crimson", "huge", "speckled", "west", "cosmos", "midnight", "slow zoom"):
        assert word in text


@pytest.mark.parametrize(
    ("phrase", "form"),
    [
        ("moves left", "moving left"),
        ("hops", "hopping"),
        ("flies to the left", "flying to the left"),
        ("gets larger", "getting larger"),
        ("zigzags", "zigzagging"),
        ("rises", "rising"),
        ("does not move", "not moving"),
        ("", ""),
    ],
)
def test_participles(phrase: str, form: str) -> None:
    assert participle(phrase) == form
