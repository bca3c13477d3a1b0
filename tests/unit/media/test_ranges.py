"""Byte ranges and validators of RFC 9110."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptivegen.media.ranges import ByteRange, answer, etag_of

ETAG = etag_of("ab" * 32)
SIZE = 1000


def ask(range_header: str | None, *, size: int = SIZE, **conditions: str) -> tuple[int, int, int]:
    decided = answer(size=size, etag=ETAG, range_header=range_header, **conditions)
    return decided.status, decided.range.start, decided.range.end


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, (200, 0, 1000)),
        ("bytes=0-0", (206, 0, 1)),
        ("bytes=0-999", (206, 0, 1000)),
        ("bytes=999-", (206, 999, 1000)),
        ("bytes=500-99999", (206, 500, 1000)),
        ("bytes=-1", (206, 999, 1000)),
        ("bytes=-5000", (206, 0, 1000)),
        ("Bytes= 10-19 ", (206, 10, 20)),
        ("bytes=1000-", (416, 0, 0)),
        ("bytes=-0", (416, 0, 0)),
        ("bytes=20-10", (416, 0, 0)),
        ("bytes=0-1,5-6", (416, 0, 0)),
        ("bytes=0-99999999999999999999999", (416, 0, 0)),
        ("bytes=99999999999999999999999-", (416, 0, 0)),
        ("bytes=", (200, 0, 1000)),
        ("bytes=-", (200, 0, 1000)),
        ("bytes=a-b", (200, 0, 1000)),
        ("bytes=1 0-19", (200, 0, 1000)),
        ("bytes=--5", (200, 0, 1000)),
        ("bytes=٣-٤", (200, 0, 1000)),
        ("lines=1-2", (200, 0, 1000)),
        ("", (200, 0, 1000)),
    ],
)
def test_a_single_range_is_cut_and_everything_else_refused_or_ignored(
    header: str | None, expected: tuple[int, int, int]
) -> None:
    assert ask(header) == expected


def test_nothing_of_an_empty_file_can_be_asked_for() -> None:
    assert ask("bytes=0-", size=0) == (416, 0, 0)
    assert ask(None, size=0) == (200, 0, 0)


def test_content_range_names_what_is_sent() -> None:
    assert ByteRange(5, 10, 100).content_range == "bytes 5-9/100"
    assert ByteRange(0, 0, 100).content_range == "bytes */100"


@pytest.mark.parametrize(
    ("if_range", "status"),
    [(ETAG, 206), (f"W/{ETAG}", 200), ('"other"', 200), ("Sat, 29 Oct 1994 19:43:31 GMT", 200), ("", 200)],
)
def test_if_range_needs_the_strong_tag(if_range: str, status: int) -> None:
    assert ask("bytes=0-0", if_range=if_range)[0] == status


@pytest.mark.parametrize(
    ("if_none_match", "status"),
    [(ETAG, 304), (f"W/{ETAG}", 304), (f'"a", {ETAG}', 304), ("*", 304), ('"a"', 200), ("ab" * 32, 200)],
)
def test_if_none_match_compares_weakly(if_none_match: str, status: int) -> None:
    assert ask(None, if_none_match=if_none_match)[0] == status


def test_if_none_match_goes_before_range() -> None:
    assert ask("bytes=0-0", if_none_match=ETAG) == (304, 0, 0)


@given(st.binary(min_size=1, max_size=50), st.integers(0, 60), st.integers(0, 60))
def test_ranges_select_what_slicing_selects(data: bytes, first: int, last: int) -> None:
    status, start, end = ask(f"bytes={first}-{last}", size=len(data))
    expected = data[first : last + 1]
    assert data[start:end] == expected
    assert status == (206 if expected else 416)


@given(st.text(max_size=40), st.integers(0, 100))
def test_no_header_breaks_it(header: str, size: int) -> None:
    for text in (header, f"bytes={header}"):
        status, start, end = ask(text, size=size)
        assert status in (200, 206, 416)
        assert 0 <= start <= end <= size
