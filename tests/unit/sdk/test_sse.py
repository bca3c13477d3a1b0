"""The decoder of server-sent events: the standard's examples, and any chunking of the same bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptivegen.errors import PayloadTooLarge
from adaptivegen.sdk.sse import ServerEvent, SseDecoder


def decode(data: bytes) -> list[ServerEvent]:
    return SseDecoder().feed(data)


def test_an_event_has_id_type_and_data() -> None:
    assert decode(b"id: 7\nevent: draft.look\ndata: {}\n\n") == [ServerEvent("7", "draft.look", "{}")]


def test_data_lines_are_joined_and_the_type_defaults_to_message() -> None:
    assert decode(b"data: a\ndata:b\ndata\n\n") == [ServerEvent("", "message", "a\nb\n")]


def test_comments_unknown_fields_and_events_without_data_say_nothing() -> None:
    assert decode(b": heartbeat\n\nretry: 5\nfoo: bar\n\nevent: x\n\n") == []


def test_the_id_lasts_until_another_and_one_with_nul_is_ignored() -> None:
    events = decode(b"id: 1\ndata: a\n\ndata: b\n\nid: 2\0\ndata: c\n\nid\ndata: d\n\n")
    assert [event.id for event in events] == ["1", "1", "1", ""]


def test_all_three_line_ends_and_a_byte_order_mark() -> None:
    assert [e.data for e in decode(b"\xef\xbb\xbfdata: a\r\n\r\ndata: b\r\rdata: c\n\n")] == ["a", "b", "c"]


def test_an_event_that_is_not_finished_is_not_given() -> None:
    assert decode(b"data: a\n") == []


def test_only_one_leading_blank_is_removed() -> None:
    assert decode(b"data:  a: b\n\n") == [ServerEvent("", "message", " a: b")]


@pytest.mark.parametrize("filler", [b"data: " + b"x" * 50, b"data: xxxxxxx\n" * 20])
def test_an_event_over_the_bound_is_refused(filler: bytes) -> None:
    decoder = SseDecoder(max_event_bytes=40)
    with pytest.raises(PayloadTooLarge, match="40 bytes"):
        decoder.feed(filler)


_LINES = st.lists(
    st.sampled_from(
        [
            b"data: a",
            b"data: \xc3\xa4\xe2\x82\xac",
            b"data",
            b"id: 1",
            b"id: 2",
            b"event: look",
            b": beat",
            b"",
            b"",
            b"x",
        ]
    ),
    max_size=30,
)


@given(
    lines=_LINES,
    ends=st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=30, max_size=30),
    bom=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=40),
)
def test_any_chunking_gives_the_same_events(lines: list[bytes], ends: list[bytes], bom: bool, cuts: list[int]) -> None:
    data = (b"\xef\xbb\xbf" if bom else b"") + b"".join(line + end for line, end in zip(lines, ends, strict=False))
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    decoder = SseDecoder()
    chunked = [e for a, b in pairwise(places) for e in decoder.feed(data[a:b])]
    assert chunked == decode(data)


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1), max_size=5),
    size=st.integers(1, 9),
)
def test_what_was_written_is_what_is_read(texts: list[str], size: int) -> None:
    stream = "".join(f"data: {text}\n\n" for text in texts).encode()
    decoder = SseDecoder()
    events = [e for at in range(0, len(stream), size) for e in decoder.feed(stream[at : at + size])]
    assert [event.data for event in events] == texts
