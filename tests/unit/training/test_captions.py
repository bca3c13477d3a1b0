"""Sentences: tidy, naming what the scene holds, with wordings that training never sees."""

import itertools
import random

import pytest

from training import captions
from training.captions import participle, sample_caption
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


def test_the_words_of_the_readmes_example_are_the_grammars_own() -> None:
    assert "circle" in captions.SHAPE_WORDS["circle"].seen
    assert "moves left" in captions.MOTION_WORDS["left"].seen
    assert "over a sunset sky" in captions.LIT_SKIES["dusk"].seen


def test_articles_fit() -> None:
    words = [text.split() for _, text in many(1500)]
    followed = {(word, after[0] in "aeiou") for text in words for word, after in itertools.pairwise(text)}
    assert {("a", False), ("an", True)} <= followed
    assert not {("a", True), ("an", False)} & followed


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
