"""Events on the wire."""

import pytest

from adaptivegen.errors import InvalidRequest
from adaptivegen.jobs.events import decode_event, make_event, terminal_event
from adaptivegen.jobs.record import JobRecord, new_record
from tests.jobs import make_spec


def ended(status: str) -> JobRecord:
    return new_record(make_spec()).model_copy(update={"status": status})


def test_an_event_is_the_same_after_the_wire() -> None:
    look = bytes(range(256))
    event = make_event(
        "draft.look", new_record(make_spec()), producer="edge-1", now_ns=5, step=1, steps=4, look_jpeg=look
    )
    assert decode_event(event.encode()) == event
    assert decode_event(event.encode()).look_jpeg == look


def test_events_of_two_producers_at_the_same_instant_differ() -> None:
    record = new_record(make_spec())
    ids = {make_event("progress", record, producer=producer, now_ns=5).id for producer in ("w1", "w2")}
    assert len(ids) == 2


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_the_end_of_a_job_is_said_by_its_status(status: str) -> None:
    event = terminal_event(ended(status), producer="n", now_ns=1)
    assert event.type == status
    assert event.final


def test_an_open_job_has_no_end_to_say() -> None:
    with pytest.raises(InvalidRequest):
        terminal_event(new_record(make_spec()), producer="n", now_ns=1)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"{}", b'{"id": "1", "type": "explosion"}'])
def test_what_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not a job event"):
        decode_event(data)
