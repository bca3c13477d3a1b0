"""What goes with a call: request ids and trace context in and out of headers."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import PurePath

import pytest
from structlog.testing import capture_logs

from adaptivegen.telemetry import (
    REQUEST_ID_HEADER,
    carry,
    configure_logging,
    get_logger,
    given_request_id,
    name_request,
    span,
    spanned,
    take_request_id,
)

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


def test_a_legal_request_id_is_taken_and_passed_on() -> None:
    take_request_id({REQUEST_ID_HEADER: "req_1.a-B"})
    assert carry()[REQUEST_ID_HEADER] == "req_1.a-B"


def test_what_would_break_the_headers_of_the_next_call_is_not_a_request_id() -> None:
    for sent in ("", "ü", "a b", "a\nb", "x" * 65, "a/b", "\x7f"):
        assert given_request_id({REQUEST_ID_HEADER: sent}) == ""
    assert given_request_id({}) == ""
    take_request_id({REQUEST_ID_HEADER: "a\r\nb"})
    assert REQUEST_ID_HEADER not in carry()


def test_a_span_continues_a_valid_trace_and_ignores_an_invalid_one() -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with span("x", carrier={"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}) as inner:
        assert f"{inner.get_span_context().trace_id:032x}" == trace_id
        assert carry()["traceparent"].split("-")[1] == trace_id
    with span("y", carrier={"traceparent": "00-nonsense"}) as other:
        assert f"{other.get_span_context().trace_id:032x}" != trace_id


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "00-nonsense",
        f"ff-{TRACE_ID}-b7ad6b7169203331-01",
        f"00-{TRACE_ID.upper()}-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"{PARENT}-more",
        f"{PARENT}\n",
        f"{PARENT}\r\nx: y",
        PARENT.replace("0af", "\N{FULLWIDTH DIGIT ZERO}af"),
        "x" * 100_000,
    ],
)
def test_what_is_no_traceparent_is_dropped_without_a_word(sent: str, caplog: pytest.LogCaptureFixture) -> None:
    with span("x", carrier={"traceparent": sent, "tracestate": "a=b"}) as current:
        assert f"{current.get_span_context().trace_id:032x}" != TRACE_ID
        assert "a=b" not in carry().values()
    assert caplog.records == []


def test_a_state_of_the_trace_goes_on_with_it() -> None:
    with span("x", carrier={"traceparent": PARENT, "tracestate": "vendor=1,other=2"}):
        assert carry()["tracestate"] == "vendor=1,other=2"


@pytest.mark.parametrize(
    "state", [",".join(f"k{n}={'v' * 250}" for n in range(32)), "a=ü", "a=b\r\nc: d", "a=\x00", "="]
)
def test_a_state_that_headers_cannot_carry_is_dropped_and_the_trace_goes_on(
    state: str, caplog: pytest.LogCaptureFixture
) -> None:
    with span("x", carrier={"traceparent": PARENT, "tracestate": state}):
        carried = carry()
    assert carried["traceparent"].split("-")[1] == TRACE_ID
    assert "tracestate" not in carried
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_an_id_that_was_bound_by_other_hands_goes_on_only_if_it_can() -> None:
    name_request("a\r\nb")
    assert REQUEST_ID_HEADER not in carry()


def test_a_log_line_is_one_object_with_who_what_and_under_which_request(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("edge", "edge-1", level="info")
    get_logger().debug("not_shown")
    take_request_id({REQUEST_ID_HEADER: "req_1"})
    get_logger().info("something", size="two\nlines")
    [line] = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    timestamp = told.pop("timestamp")
    assert timestamp.endswith("Z")
    assert told == {
        "event": "something",
        "level": "info",
        "service": "edge",
        "node_id": "edge-1",
        "request_id": "req_1",
        "size": "two\nlines",
    }


def test_a_log_line_tells_the_event_then_whose_it_is_then_when_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("edge", "edge-1", level="info")
    take_request_id({REQUEST_ID_HEADER: "req_1"})
    with span("x", carrier={"traceparent": PARENT}):
        get_logger().info("placed", job_id="vid_1", final_s=None)
    [line] = capsys.readouterr().out.splitlines()
    before, _, timestamp = line.partition(', "timestamp": ')
    assert before == (
        '{"job_id": "vid_1", "final_s": null, "event": "placed", "service": "edge", "node_id": "edge-1",'
        f' "request_id": "req_1", "level": "info", "trace_id": "{TRACE_ID}"'
    )
    assert re.fullmatch(r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"}', timestamp)


def test_lines_tell_the_second_they_are_of(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("edge", "edge-1", level="info")
    bounds = [datetime.now(UTC)]
    for _ in range(3):
        get_logger().info("x")
        time.sleep(0.6)  # over a second's end at least once
        bounds.append(datetime.now(UTC))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [datetime.fromisoformat(line["timestamp"]) for line in lines]
    for (before, after), at in zip(pairwise(bounds), told, strict=True):
        assert before <= at <= after


def test_what_a_caller_says_of_whose_line_it_is_stands(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("edge", "edge-1", level="info")
    take_request_id({REQUEST_ID_HEADER: "req_1"})
    get_logger().warning("registered", service="adaptivegen-edge", request_id="req_2")
    told = json.loads(capsys.readouterr().out)
    assert (told["service"], told["node_id"], told["request_id"]) == ("adaptivegen-edge", "edge-1", "req_2")
    assert told["level"] == "warning"


def test_what_json_cannot_say_is_told_as_python_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("edge", "edge-1", level="info")
    get_logger().info("odd", what={"at": PurePath("ü"), "all": (1, None)}, text="ü\ud800")
    out = capsys.readouterr().out
    told = json.loads(out)
    assert (told["what"], told["text"]) == ({"at": repr(PurePath("ü")), "all": [1, None]}, "ü\ud800")
    assert out.isascii()


def test_an_error_is_told_with_its_traceback_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("edge", "edge-1", level="info")
    try:
        raise ValueError("odd")
    except ValueError as exc:
        get_logger().error("unexpected_error", exc_info=exc)
    [line] = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert told["exception"].startswith("Traceback") and told["exception"].endswith("ValueError: odd")
    assert "exc_info" not in told


def test_lines_of_other_threads_are_whole_and_name_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("edge", "edge-1", level="info")

    def say(who: int) -> None:
        for number in range(200):
            get_logger().info("said", who=who, number=number, long="x" * 1000)

    threads = [threading.Thread(target=say, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(line["service"], line["node_id"]) for line in lines} == {("edge", "edge-1")}
    said = [[line["number"] for line in lines if line["who"] == who] for who in range(4)]
    assert said == [list(range(200))] * 4


KILLED = """
import os, signal
from adaptivegen.telemetry import configure_logging, get_logger
configure_logging("edge", "edge-1")
for number in range(3):
    get_logger().info("said", number=number)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_logged_before_a_process_was_killed_is_there() -> None:
    told = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False, timeout=30)
    assert told.returncode == -signal.SIGKILL
    assert [json.loads(line)["number"] for line in told.stdout.splitlines()] == [0, 1, 2]


def test_loggers_got_before_and_after_the_set_up_write_the_same_lines(capsys: pytest.CaptureFixture[str]) -> None:
    early = get_logger()
    configure_logging("edge", "edge-1", level="info")
    early.info("early")
    get_logger().info("late")
    with capture_logs() as heard:
        get_logger().info("heard")
    assert [line["event"] for line in heard] == ["heard"]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line["service"]) for line in lines] == [("early", "edge"), ("late", "edge")]


def test_a_log_line_within_a_span_names_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("edge", "edge-1", level="info")
    with span("x", carrier={"traceparent": PARENT}):
        get_logger().info("within")
    get_logger().info("outside")
    within, outside = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert within["trace_id"] == TRACE_ID
    assert "trace_id" not in outside


async def test_the_items_of_a_stream_are_made_in_its_trace_and_read_outside_of_it() -> None:
    ended = False

    async def items() -> AsyncIterator[str]:
        nonlocal ended
        try:
            while True:
                yield carry()["traceparent"].split("-")[1]
        finally:
            ended = True

    stream = spanned("x", items(), carrier={"traceparent": PARENT})
    for _ in range(2):
        assert await anext(stream) == TRACE_ID
        assert carry().get("traceparent", "").split("-")[1:2] != [TRACE_ID]
    async with asyncio.TaskGroup() as group:
        group.create_task(stream.aclose())  # not the task that has read it
    assert ended


async def test_an_error_of_a_stream_is_its_readers() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        raise ValueError("odd")

    got = []
    with pytest.raises(ValueError, match="odd"):
        async for item in spanned("x", items()):
            got.append(item)
    assert got == [1]


RECORDED = f"""
from opentelemetry import trace

class Recorded(trace.NonRecordingSpan):
    def is_recording(self):
        return True
    def end(self, end_time=None):
        print("ended")

class Recorder(trace.NoOpTracer):
    def start_span(self, name, context=None, kind=None, attributes=None, **more):
        parent = trace.get_current_span(context).get_span_context()
        print("begun", name, f"{{parent.span_id:016x}}", dict(attributes))
        return Recorded(trace.SpanContext(parent.trace_id, 5, False, parent.trace_flags))

class Provider(trace.TracerProvider):
    def get_tracer(self, *names, **more):
        return Recorder()

trace.set_tracer_provider(Provider())
from adaptivegen.telemetry import carry, span
with span("work", carrier={{"traceparent": "{PARENT}"}}, job_id="vid_1"):
    print(carry()["traceparent"])
"""


def test_whatever_records_spans_in_a_process_is_given_them_whole() -> None:
    """In a process of its own, since a provider is set once."""
    told = subprocess.run([sys.executable, "-c", RECORDED], capture_output=True, text=True, check=True, timeout=30)
    assert told.stdout.splitlines() == [
        "begun work b7ad6b7169203331 {'job_id': 'vid_1'}",
        f"00-{TRACE_ID}-0000000000000005-01",
        "ended",
    ]
