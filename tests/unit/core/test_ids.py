"""Ids and what may become a subject, key or path."""

import random

import pytest

from adaptivegen.errors import InvalidRequest
from adaptivegen.ids import check_idempotency_key, check_name, check_video_id, new_video_id

HOSTILE = ["", ".", "..", "a.b", "a*", "a>", "a/b", "../x", "a\0", "a\r\n", "a b", "А", "ID", "-x", "x" * 64]


def test_new_ids_are_legal_unique_and_sort_by_time() -> None:
    rng = random.Random(1)
    ids = [new_video_id(now_ns=n * 1_000_000, rng=rng) for n in range(1_700_000_000_000, 1_700_000_000_050)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 50
    assert all(check_video_id(name) == name for name in ids)


@pytest.mark.parametrize("value", [*HOSTILE, "vid_", "vid_" + "i" * 26, "vid_" + "0" * 25, "vid_" + "0" * 27])
def test_anything_else_is_no_video_id(value: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_video_id(value)
    assert caught.value.param == "id"


@pytest.mark.parametrize("value", HOSTILE)
def test_names_that_could_leave_their_place_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequest):
        check_name(value, field="node_id")


def test_ordinary_names_pass() -> None:
    assert check_name("edge-1", field="node_id") == "edge-1"


@pytest.mark.parametrize("value", ["", "a b", "a\n", "k" * 129, "ü"])
def test_bad_idempotency_keys_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequest):
        check_idempotency_key(value)
