"""What goes with a call: request ids and trace context in and out of headers."""

import structlog

from adaptivegen.telemetry import REQUEST_ID_HEADER, carry, given_request_id, span, take_request_id


def test_a_legal_request_id_is_taken_and_passed_on() -> None:
    structlog.contextvars.clear_contextvars()
    take_request_id({REQUEST_ID_HEADER: "req_1.a-B"})
    assert carry()[REQUEST_ID_HEADER] == "req_1.a-B"
    structlog.contextvars.clear_contextvars()


def test_what_would_break_the_headers_of_the_next_call_is_not_a_request_id() -> None:
    for sent in ("", "ü", "a b", "a\nb", "x" * 65, "a/b", "\x7f"):
        assert given_request_id({REQUEST_ID_HEADER: sent}) == ""
    assert given_request_id({}) == ""
    structlog.contextvars.clear_contextvars()
    take_request_id({REQUEST_ID_HEADER: "a\r\nb"})
    assert REQUEST_ID_HEADER not in carry()


def test_a_span_continues_a_valid_trace_and_ignores_an_invalid_one() -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with span("x", carrier={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}) as inner:
        assert f"{inner.get_span_context().trace_id:032x}" == trace_id
        assert carry()["traceparent"].split("-")[1] == trace_id
    with span("y", carrier={"traceparent": "00-nonsense"}) as other:
        assert f"{other.get_span_context().trace_id:032x}" != trace_id
