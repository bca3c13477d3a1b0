"""Framing: what is encoded is decoded, and a broken peer cannot make us allocate."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptivegen.child import framing
from adaptivegen.child.framing import Message, Parts, decode_header, decode_length, encode
from adaptivegen.errors import InternalError


def roundtrip(header: dict[str, Any], parts: Parts) -> Message:
    data = b"".join(encode(header, parts))
    length = decode_length(data[:4])
    decoded, listed = decode_header(data[4 : 4 + length])
    rest = data[4 + length :]
    found: dict[str, bytes] = {}
    for name, size in listed:
        found[name], rest = rest[:size], rest[size:]
    assert rest == b""
    return decoded, found


@given(
    st.dictionaries(st.text(max_size=8).filter(lambda name: name != "_parts"), st.integers() | st.text(), max_size=4),
    st.dictionaries(st.text(max_size=8), st.binary(max_size=200), max_size=4),
)
def test_what_is_encoded_is_decoded(header: dict[str, Any], parts: dict[str, bytes]) -> None:
    assert roundtrip(header, parts) == (header, parts)


def test_an_array_travels_as_its_bytes_without_a_copy() -> None:
    frames = np.arange(2 * 3 * 4 * 3, dtype=np.float32).reshape(2, 3, 4, 3)
    assert np.shares_memory(np.frombuffer(encode({}, {"frames": frames.data})[1], np.float32), frames)
    _, parts = roundtrip({}, {"frames": frames.data})
    assert np.array_equal(np.frombuffer(parts["frames"], np.float32).reshape(2, 3, 4, 3), frames)


@pytest.mark.parametrize("length", [0, 1, framing.MAX_HEADER_BYTES + 1, 0xFFFFFFFF])
def test_absurd_header_lengths_are_refused(length: int) -> None:
    with pytest.raises(InternalError, match="allowed"):
        decode_length(length.to_bytes(4, "big"))


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"_parts": 5}',
        b'{"_parts": [["x"]]}',
        b'{"_parts": [["x", -1]]}',
        b'{"_parts": [["x", Infinity]]}',
        b"[" * 100_000,
        b"\xff\xfe",
        json.dumps({"_parts": [["x", framing.MAX_PARTS_BYTES], ["y", 1]]}).encode(),
    ],
)
def test_malformed_headers_are_refused(data: bytes) -> None:
    with pytest.raises(InternalError):
        decode_header(data)


def test_a_header_beyond_the_limit_is_not_sent() -> None:
    with pytest.raises(InternalError, match="header has"):
        encode({"text": "x" * framing.MAX_HEADER_BYTES}, {})
