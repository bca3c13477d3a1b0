"""The shipped text side: any prompt gives slots, left is told from right, strange prompts from known ones."""

import numpy as np
import pytest
from numpy.typing import NDArray

from adaptivegen.models.registry import WEIGHTS
from adaptivegen.models.slots import SlotEncoder


@pytest.fixture(scope="module")
def encoder() -> SlotEncoder:
    return SlotEncoder(WEIGHTS / "text", threads=1)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(a.ravel() @ b.ravel() / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_the_same_prompt_gives_the_same_slots_whatever_its_case(encoder: SlotEncoder) -> None:
    one, again = encoder.encode("a red circle moves left"), encoder.encode("A Red Circle moves LEFT")
    np.testing.assert_array_equal(one.slots, again.slots)
    np.testing.assert_array_equal(one.pooled, again.pooled)
    assert np.linalg.norm(one.pooled) == pytest.approx(1.0, abs=1e-3)


def test_left_and_right_differ_in_the_slot_of_their_object_and_not_in_the_pooled_vector(encoder: SlotEncoder) -> None:
    left, right = (encoder.encode(f"a red circle moves {way} over the sea") for way in ("left", "right"))
    assert cosine(left.slots[0], right.slots[0]) < 0.9
    assert cosine(left.slots[-1], right.slots[-1]) > 0.95
    assert cosine(left.pooled, right.pooled) > 0.95


@pytest.mark.parametrize("prompt", ["", "x " * 3000, "\u00e9\u4e2d\u6587 \U0001f600", "[SEP] [PAD]"])
def test_any_text_gives_slots(encoder: SlotEncoder, prompt: str) -> None:
    text = encoder.encode(prompt)
    assert text.slots.shape == (4, 192)
    assert np.isfinite(text.slots).all()
    assert -1.0 <= text.familiarity <= 1.0


def test_familiarity_tells_what_the_models_know_from_what_they_do_not(encoder: SlotEncoder) -> None:
    known = encoder.encode("a small blue star bounces over a forest at night").familiarity
    strange = encoder.encode("quarterly report on the taxation of companies").familiarity
    assert known > 0.75
    assert strange < 0.5
