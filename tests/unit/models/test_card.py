"""Model cards: every bad field is refused by name, and a card survives the round trip."""

import copy
import json
from typing import Any

import pytest

from adaptivegen.errors import InvalidRequest
from adaptivegen.models.card import CardFile, card_digest, dump_card, parse_card

FILES = {"base": {"path": "m/base.onnx", "sha256": "a" * 64, "bytes": 10}}
CARD: dict[str, Any] = {
    "name": "m",
    "version": "1.2.3",
    "role": "cloud",
    "description": "a model",
    "latent_space": "pixels",
    "files": FILES,
    "limits": {
        "sizes": ["128x128"],
        "seconds": [2.0],
        "fps": 12,
        "steps_min": 1,
        "steps_max": 8,
        "steps_default": 4,
        "guidance_min": 1.0,
        "guidance_max": 4.0,
        "guidance_default": 1.0,
    },
    "refine": {"from": ["other"], "t0": 0.5, "steps": 4},
    "path": {"shape": [4, 8], "sampler": "euler", "sigmas": "linear", "files": ["base"]},
    "split": {"to": ["other"], "until": 0.5, "steps": 2, "finish_steps": 1},
    "profile": [
        {
            "hardware": "x",
            "threads": 2,
            "backend": "onnx",
            "width": 128,
            "height": 128,
            "frames": 24,
            "load_ms": 1,
            "text_ms": 1,
            "step_ms": 1,
            "upsample_ms": 1,
            "first_look_ms": 2,
            "encode_ms": 0,
            "memory_mib": 5,
        }
    ],
    "quality": {"mos": {"value": 3.0, "low": 2.0, "high": 4.0, "n": 10}},
    "scores": [
        {
            "plan": "cloud",
            "steps": 4,
            "width": 128,
            "height": 128,
            "accuracy": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 10},
            "mos": {"value": 3.0, "low": 2.0, "high": 4.0, "n": 10},
        }
    ],
    "digest": card_digest("m", "1.2.3", {"base": CardFile(path="m/base.onnx", sha256="a" * 64, bytes=10)}),
}

OPTIONAL = ("refine", "path", "split", "profile", "quality", "scores")
BAD: list[tuple[tuple[str | int, ...], object]] = [
    (("name",), "Bad Name"),
    (("name",), "../m"),
    (("version",), "1"),
    (("role",), "other"),
    (("description",), ""),
    (("latent_space",), "Bad Space"),
    (("path", "shape"), []),
    (("path", "shape"), [0, 4]),
    (("path", "files"), ["autoencoder"]),
    (("path", "sigmas"), ""),
    (("path",), None),  # with a split
    (("split", "until"), 1.0),
    (("split", "to"), []),
    (("split", "finish_steps"), 0),
    (("files",), {}),
    (("files", "base", "path"), "../../etc/passwd"),
    (("files", "base", "path"), "/abs"),
    (("files", "base", "sha256"), "abc"),
    (("files", "base", "bytes"), 0),
    (("limits", "sizes"), []),
    (("limits", "sizes"), ["128"]),
    (("limits", "sizes"), ["0x128"]),
    (("limits", "seconds"), [0.0]),
    (("limits", "seconds"), ["NaN"]),
    (("limits", "fps"), 0),
    (("limits", "steps_min"), 0),
    (("limits", "steps_default"), 9),
    (("limits", "guidance_default"), 9.0),
    (("limits", "guidance_max"), "Infinity"),
    (("limits", "seed_max"), 2**63),
    (("limits", "prompt_max_bytes"), 0),
    (("refine", "t0"), 1.0),
    (("refine", "steps"), 0),
    (("refine", "from"), []),
    (("profile", 0, "backend"), "magic"),
    (("profile", 0, "step_ms"), -1),
    (("profile", 0, "threads"), 0),
    (("quality", "mos"), {"value": 5.5, "low": 5.0, "high": 6.0, "n": 3}),
    (("quality", "mos"), {"value": 3.0, "low": 3.5, "high": 4.0, "n": 3}),
    (("quality", "mos", "n"), 0),
    (("scores", 0, "plan"), "hit"),
    (("scores", 0, "steps"), 0),
    (("scores", 0, "width"), 0),
    (("scores", 0, "mos"), {"value": 5.5, "low": 5.0, "high": 6.0, "n": 3}),
    (("digest",), "b" * 64),
    (("surprise",), 1),
]


def test_a_card_survives_the_round_trip() -> None:
    card = parse_card(json.dumps(CARD))
    assert parse_card(dump_card(card)) == card
    assert card.limits.frame_counts() == (24,)
    assert card.refine is not None
    assert card.refine.sources == ("other",)


@pytest.mark.parametrize(("where", "value"), BAD, ids=[".".join(map(str, w)) + f"={v!r}"[:30] for w, v in BAD])
def test_a_bad_field_is_refused_with_its_name(where: tuple[str | int, ...], value: object) -> None:
    card = copy.deepcopy(CARD)
    place: Any = card
    for part in where[:-1]:
        place = place[part]
    place[where[-1]] = value
    with pytest.raises(InvalidRequest) as caught:
        parse_card(json.dumps(card))
    assert caught.value.param is not None
    assert caught.value.param.startswith("card")


@pytest.mark.parametrize("field", [field for field in CARD if field not in OPTIONAL])
def test_a_missing_field_is_refused(field: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_card(json.dumps({key: value for key, value in CARD.items() if key != field}))


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        parse_card("{")


def test_the_digest_follows_every_file_and_the_version() -> None:
    one = CardFile(path="p", sha256="a" * 64, bytes=1)
    two = CardFile(path="p", sha256="b" * 64, bytes=1)
    digests = {card_digest("m", "1.0.0", {"f": one}), card_digest("m", "1.0.0", {"f": two})}
    assert len(digests | {card_digest("m", "1.0.1", {"f": one}), card_digest("m", "1.0.0", {"g": one})}) == 4
