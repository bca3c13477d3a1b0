"""A request outside the card's limits is refused with field, value and limit."""

import dataclasses
import math

import pytest

from adaptivegen.errors import InvalidRequest
from adaptivegen.models.base import GenerationInput
from adaptivegen.models.card import Limits
from adaptivegen.models.limits import check, check_strength

LIMITS = Limits(
    sizes=("128x128",),
    seconds=(2.0,),
    fps=12,
    steps_min=1,
    steps_max=8,
    steps_default=4,
    guidance_min=1.0,
    guidance_max=4.0,
    guidance_default=1.0,
)
GOOD = GenerationInput("a red ball", 1, 128, 128, 24, 4, 1.0)


def test_a_request_inside_passes() -> None:
    check(GOOD, LIMITS)
    check(dataclasses.replace(GOOD, seed=2**63 - 1, steps=8, guidance=4.0, prompt="x" * 4096), LIMITS)


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("width", 64, "size"),
        ("height", 0, "size"),
        ("frames", 23, "frames"),
        ("steps", 0, "steps"),
        ("steps", 9, "steps"),
        ("guidance", 0.5, "guidance"),
        ("guidance", math.nan, "guidance"),
        ("guidance", math.inf, "guidance"),
        ("seed", -1, "seed"),
        ("seed", 2**63, "seed"),
        ("prompt", "", "prompt"),
        ("prompt", "é" * 2049, "prompt"),
    ],
)
def test_a_field_outside_is_named(field: str, value: object, param: str) -> None:
    bad = dataclasses.replace(GOOD, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest) as caught:
        check(bad, LIMITS)
    assert caught.value.param == param


@pytest.mark.parametrize("strength", [0.0, 1.0, -0.2, math.nan, math.inf])
def test_strength_lies_strictly_between_zero_and_one(strength: float) -> None:
    with pytest.raises(InvalidRequest):
        check_strength(strength, has_start=True)


def test_strength_needs_a_start_clip() -> None:
    check_strength(0.5, has_start=True)
    check_strength(None, has_start=False)
    with pytest.raises(InvalidRequest):
        check_strength(0.5, has_start=False)
