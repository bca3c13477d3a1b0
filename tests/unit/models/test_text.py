"""The shipped text encoder: deterministic, and it tells left from right."""

from pathlib import Path

import numpy as np
import pytest

from adaptivegen.models.registry import WEIGHTS
from adaptivegen.models.text import TEXT_TOKENS, TextEncoder


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(Path(WEIGHTS) / "text", threads=1)


def test_the_same_prompt_gives_the_same_embedding(encoder: TextEncoder) -> None:
    one, again = (encoder.encode("a red circle moves left over a sunset sky") for _ in range(2))
    np.testing.assert_array_equal(one.tokens, again.tokens)
    np.testing.assert_array_equal(one.pooled, again.pooled)
    assert one.tokens.shape == (TEXT_TOKENS, 384)
    assert one.mask.sum() == 11
    assert np.linalg.norm(one.pooled) == pytest.approx(1.0, abs=1e-3)


def test_left_and_right_differ_in_their_own_token_far_more_than_in_the_pooled_vector(encoder: TextEncoder) -> None:
    left = encoder.encode("a red circle moves left over a sunset sky")
    right = encoder.encode("a red circle moves right over a sunset sky")

    def cosine(a: np.typing.NDArray[np.float32], b: np.typing.NDArray[np.float32]) -> float:
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    word = 5  # [CLS] a red circle moves LEFT
    assert cosine(left.tokens[word], right.tokens[word]) < 0.8
    assert cosine(left.pooled, right.pooled) > 0.95


@pytest.mark.parametrize("prompt", ["", "x " * 3000, "\u00e9\u4e2d\u6587 \U0001f600", "[SEP] [PAD]"])
def test_any_text_is_encoded_within_the_token_limit(encoder: TextEncoder, prompt: str) -> None:
    text = encoder.encode(prompt)
    assert 0 < text.mask.sum() <= TEXT_TOKENS
    assert np.isfinite(text.tokens).all()
    assert not text.tokens[text.mask == 0].any()


def test_case_does_not_matter(encoder: TextEncoder) -> None:
    np.testing.assert_array_equal(encoder.encode("A Red Ball").tokens, encoder.encode("a red ball").tokens)
