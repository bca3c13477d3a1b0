"""Requests: every field checked against its limit, defaults resolved, the content key."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptivegen.errors import InvalidRequest, PayloadTooLarge
from adaptivegen.request import GenerationRequest, Reference, content_key, parse_request
from tests.cards import cloud_card

CARD = cloud_card()
DIGESTS = {"cloud_digest": "c", "draft_digest": "d"}


def parsed(**values: object) -> GenerationRequest:
    return parse_request({"prompt": "a red circle", **values}, CARD)


def test_defaults_come_from_the_card() -> None:
    request = parsed()
    assert (request.width, request.height, request.seconds, request.fps, request.frames) == (256, 256, 2.0, 12, 24)
    assert (request.steps, request.guidance, request.seed, request.intent) == (None, 2.0, None, "render")


def test_numbers_may_come_as_text_as_forms_send_them() -> None:
    request = parsed(seconds="2", steps="6", seed="9223372036854775807", guidance="1.5", fps="12")
    assert (request.seconds, request.steps, request.seed, request.guidance) == (2.0, 6, 2**63 - 1, 1.5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", ""),
        ("prompt", "   "),
        ("prompt", "a\nb"),
        ("prompt", "a\x00b"),
        ("prompt", "\x7f"),
        ("prompt", "\ud800"),
        ("prompt", None),
        ("prompt", 5),
        ("size", "257x256"),
        ("size", "0x0"),
        ("size", ["256x256"]),
        ("seconds", 3),
        ("seconds", -2),
        ("seconds", float("nan")),
        ("seconds", "1e999"),
        ("seconds", True),
        ("fps", 24),
        ("steps", 51),
        ("steps", 0),
        ("steps", 2.5),
        ("steps", "many"),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", float("inf")),
        ("guidance", float("nan")),
        ("guidance", 99),
        ("guidance", [1]),
        ("intent", "whatever"),
        ("plan", "hit"),
        ("strength", 0.5),
        ("task", "extend"),
        ("task", "paint"),
        ("promt", "x"),
    ],
)
def test_a_bad_field_is_refused_by_its_name(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parsed(**{field: value})
    assert caught.value.param == field


def test_a_huge_prompt_names_its_size_and_the_limit() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        parsed(prompt="x" * 4097)
    assert "4097" in caught.value.message
    assert "4096" in caught.value.message


@pytest.mark.parametrize("strength", [0.0, 1.0, -0.1, math.inf])
def test_strength_lies_strictly_between_zero_and_one(strength: float) -> None:
    reference = Reference(kind="image", sha256="a", key="inputs/t/a")
    with pytest.raises(InvalidRequest):
        parse_request({"prompt": "x", "strength": strength}, CARD, reference=reference)


VIDEO, IMAGE = (Reference(kind=kind, sha256="a", key="inputs/t/a") for kind in ("video", "image"))


@pytest.mark.parametrize(
    ("reference", "task", "meant"),
    [
        (None, None, "restyle"),
        (IMAGE, None, "animate"),
        (VIDEO, None, "restyle"),
        (VIDEO, "restyle", "restyle"),
        (VIDEO, "extend", "extend"),
        (VIDEO, "interpolate", "interpolate"),
    ],
)
def test_what_a_reference_is_for_follows_from_its_kind_and_the_task(
    reference: Reference | None, task: str | None, meant: str
) -> None:
    request = parse_request({"prompt": "x", "task": task}, CARD, reference=reference)
    assert request.reference_task == meant


def test_a_task_is_for_videos_and_decides_the_frames() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request({"prompt": "x", "task": "extend"}, CARD, reference=IMAGE)
    assert caught.value.param == "task"
    keys = {
        content_key(parse_request({"prompt": "x", "seed": 1, "task": task}, CARD, reference=VIDEO), **DIGESTS)
        for task in ("restyle", "extend", "interpolate")
    }
    assert len(keys) == 3


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.booleans(), st.floats(), st.text(), st.binary())))
def test_no_input_raises_anything_but_a_typed_error(values: dict[str, object]) -> None:
    try:
        request = parse_request(values, CARD)
    except InvalidRequest:
        return
    assert request.frames == 24


def test_the_content_key_depends_on_what_is_seen_and_on_nothing_else() -> None:
    base = parsed(seed=7)
    key = content_key(base, **DIGESTS)
    assert content_key(parsed(seed=7, intent="iterate"), **DIGESTS) == key
    different = [
        content_key(parsed(seed=8), **DIGESTS),
        content_key(parsed(seed=7, steps=5), **DIGESTS),
        content_key(parsed(seed=7, plan="cloud"), **DIGESTS),
        content_key(base, cloud_digest="other", draft_digest="d"),
        content_key(base, cloud_digest="c", draft_digest="other"),
    ]
    assert len({key, *different}) == 6


def test_the_content_key_needs_a_drawn_seed() -> None:
    with pytest.raises(InvalidRequest):
        content_key(parsed(), **DIGESTS)
