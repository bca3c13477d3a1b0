"""The shipped weights really make what the prompt asks: colour, place of the movement, speed of a cancel."""

import numpy as np
import pytest
from numpy.typing import NDArray

from adaptivegen.models.base import Clip, GenerationCancelled, GenerationInput, Generator, StepReport
from adaptivegen.models.registry import card_names, load_card, open_generator, verified_files
from core_cloud.models import registry as cloud_registry

HUES = {
    "red": (0.85, 0.08, 0.10),
    "green": (0.10, 0.75, 0.15),
    "blue": (0.10, 0.19, 0.90),
    "yellow": (0.95, 0.85, 0.05),
}


@pytest.fixture(scope="module")
def draft() -> Generator:
    return open_generator("pocket-draft", threads=2)


def generate(model: Generator, prompt: str, seed: int = 5) -> Clip:
    limits = model.card.limits
    width, height = (int(part) for part in limits.sizes[0].split("x"))
    request = GenerationInput(prompt, seed, width, height, 24, limits.steps_default, limits.guidance_default)
    return model.generate(request, on_step=lambda report: None, should_stop=lambda: False)


def near(clip: Clip, colour: str) -> NDArray[np.bool_]:
    """(T, H, W): pixels close to the colour."""
    found: NDArray[np.bool_] = np.linalg.norm(clip / 255.0 - np.array(HUES[colour]), axis=-1) < 0.3
    return found


def test_all_models_are_shipped_and_small() -> None:
    assert card_names() == ("pocket-cloud", "pocket-cloud-mixed", "pocket-cloud-pruned", "pocket-draft")
    sizes = {file.path: file.bytes for name in card_names() for file in load_card(name).files.values()}
    assert sum(sizes.values()) <= 60_000_000
    for name in card_names():
        assert verified_files(load_card(name))


@pytest.mark.parametrize("colour", list(HUES))
def test_the_requested_colour_dominates_the_object(draft: Generator, colour: str) -> None:
    clip = generate(draft, f"a big {colour} square stays still")
    middle = clip[:, 40:88, 40:88]
    shares = {name: float(near(middle, name).mean()) for name in HUES}
    assert max(shares, key=lambda name: shares[name]) == colour
    assert shares[colour] > 0.3
    assert near(clip[:, :20], colour).mean() < 0.05


@pytest.mark.parametrize(("word", "axis", "sign"), [("left", 2, -1), ("right", 2, 1), ("up", 1, -1), ("down", 1, 1)])
def test_the_object_moves_where_the_prompt_says(draft: Generator, word: str, axis: int, sign: int) -> None:
    clip = generate(draft, f"a big red circle moves {word}")
    mask = near(clip, "red")
    place = np.arange(128).reshape([-1 if i == axis else 1 for i in range(3)])
    first, last = (float((part * place).sum() / max(1, part.sum())) for part in (mask[:6], mask[-6:]))
    assert (last - first) * sign > 10, f"moved {last - first:.1f} pixels"


def test_the_seed_decides_the_clip_of_the_shipped_model(draft: Generator) -> None:
    prompt = "a green star moves up over the sea"
    np.testing.assert_array_equal(generate(draft, prompt, 1), generate(draft, prompt, 1))
    assert (generate(draft, prompt, 1) != generate(draft, prompt, 2)).any()


def test_cancelling_the_shipped_model_stops_before_the_next_step(draft: Generator) -> None:
    done: list[StepReport] = []
    request = GenerationInput("a red ball", 1, 128, 128, 24, 32, 1.0)
    with pytest.raises(GenerationCancelled):
        draft.generate(request, on_step=done.append, should_stop=lambda: len(done) >= 2)
    assert len(done) == 2


def test_the_cloud_refines_a_draft_at_its_larger_size(draft: Generator) -> None:
    cloud = open_generator("pocket-cloud", threads=2)
    start = generate(draft, "a big yellow circle moves right over a night sky")
    request = GenerationInput("a big yellow circle moves right over a night sky", 5, 256, 256, 24, 3, 1.0)
    final = cloud.generate(request, start=start, task="refine", on_step=lambda report: None, should_stop=lambda: False)
    assert final.shape == (24, 256, 256, 3)
    shrunk = final.reshape(24, 128, 2, 128, 2, 3).mean(axis=(2, 4))
    assert np.abs(shrunk - start).mean() < 25


def test_a_final_from_noise_puts_its_object_where_the_draft_of_its_seed_has_it(draft: Generator) -> None:
    prompt = "a big red circle moves in circles over snow"
    cloud = open_generator("pocket-cloud", threads=2)
    request = GenerationInput(prompt, 5, 128, 128, 24, 4, 1.0)
    final = cloud.generate(request, on_step=lambda report: None, should_stop=lambda: False)
    for one, other in zip(centres(final), centres(generate(draft, prompt)), strict=True):
        assert np.linalg.norm(one - other) < 0.03 * 128


@pytest.mark.parametrize(("word", "axis", "sign"), [("right", 1, 1), ("down", 0, 1)])
def test_an_image_moves_from_where_its_object_is_as_the_prompt_says(
    draft: Generator, word: str, axis: int, sign: int
) -> None:
    image = np.full((1, 128, 128, 3), (190, 180, 160), np.uint8)
    image[:, 40:80, 34:74] = [int(255 * part) for part in HUES["red"]]
    request = GenerationInput(f"a big red square moves {word} before a plain background", 5, 128, 128, 24, 4, 1.0)
    clip = draft.generate(request, start=image, task="animate", on_step=lambda report: None, should_stop=lambda: False)
    path = centres(clip)
    assert np.linalg.norm(path[0] - (59.5, 53.5)) < 8  # a twelfth of the way is behind it
    assert (path[-1] - path[0])[axis] * sign > 25


def test_an_image_that_shows_nothing_of_the_prompt_is_answered_all_the_same(draft: Generator) -> None:
    image = np.random.default_rng(0).integers(0, 255, (1, 90, 160, 3), dtype=np.uint8)
    request = GenerationInput("a small green heart shrinks", 5, 128, 128, 24, 2, 1.0)
    clip = draft.generate(request, start=image, task="animate", on_step=lambda report: None, should_stop=lambda: False)
    assert clip.shape == (24, 128, 128, 3)


def centres(clip: Clip) -> list[NDArray[np.float64]]:
    """Row and column of the middle of what is red, in a frame of every sixth of the clip."""
    masks = near(clip[2::4], "red")
    return [np.argwhere(mask).mean(axis=0) for mask in masks]


@pytest.mark.parametrize(
    ("name", "off"), [("pocket-cloud", 1.0), ("pocket-cloud-pruned", 1.0), ("pocket-cloud-mixed", 4.0)]
)
def test_torch_and_onnx_agree(name: str, off: float) -> None:
    pytest.importorskip("torch", reason="the gpu or train extra (torch) is not installed")
    pytest.importorskip("onnx", reason="the train extra (onnx) is not installed")
    request = GenerationInput("a blue heart grows in a desert", 3, 128, 128, 24, 2, 1.5)
    models = (
        cloud_registry.open_generator(name, threads=2, backend="onnx"),
        cloud_registry.open_generator(name, threads=2, backend="torch", device="cpu"),
    )
    clips = [model.generate(request, on_step=lambda report: None, should_stop=lambda: False) for model in models]
    assert np.abs(clips[0].astype(int) - clips[1]).mean() < off
