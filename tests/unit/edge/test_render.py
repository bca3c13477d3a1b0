"""What clients see of records, events and errors."""

import json

import pytest

from adaptivegen.errors import STATUS, AdaptiveGenError, ResourceExhausted
from adaptivegen.http_json import error_answer
from adaptivegen.jobs.events import make_event
from adaptivegen.jobs.record import apply_manifest, draft_stored, new_record
from adaptivegen.jobs.spec import Failure, Manifest
from adaptivegen.rpc.video import Page
from edge_node.api import render
from tests.jobs import JOB_ID, draft_manifest, make_spec, media

RECORD = new_record(make_spec())
DONE = Manifest(id=JOB_ID, tenant="t", outcome="completed", epoch=1, finished_at_ns=3_500_000_000, final=media())


def test_an_open_video_has_no_end_no_error_and_no_media() -> None:
    shown = render.video(RECORD)
    assert (shown["object"], shown["status"], shown["seconds"], shown["size"]) == ("video", "queued", "2", "256x256")
    assert (shown["completed_at"], shown["error"], shown["draft"], shown["final"]) == (None, None, None, None)
    assert shown["created_at"] == 1


def test_media_shows_its_digest_and_never_where_it_is_stored() -> None:
    shown = json.dumps(render.video(apply_manifest(draft_stored(RECORD, draft_manifest()), DONE)))
    assert media("a").sha256 in shown and media("d").sha256 in shown
    assert "out/t/" not in shown


def test_media_tells_how_familiar_its_prompt_is() -> None:
    final = media().model_copy(update={"familiarity": 0.5})
    done = DONE.model_copy(update={"final": final})
    assert render.video(apply_manifest(RECORD, done))["final"]["familiarity"] == 0.5
    assert render.video(apply_manifest(RECORD, DONE))["final"]["familiarity"] is None


def test_a_failed_video_says_why() -> None:
    failed = DONE.model_copy(update={"outcome": "failed", "final": None, "error": Failure(code="poison", message="m")})
    assert render.video(apply_manifest(RECORD, failed))["error"] == {"code": "poison", "message": "m"}


def test_an_event_is_one_block_whatever_the_prompt_holds() -> None:
    record = RECORD.model_copy(update={"prompt": "a\n\ndata: b\r\nevent: c\u2028"})
    block = render.event(make_event("progress", record, producer="w1", now_ns=5, step=1, steps=4)).decode()
    assert block.endswith("\n\n") and block.count("\n\n") == 1
    lines = block.rstrip("\n").split("\n")
    assert lines[:2] == ["id: 5-w1", "event: progress"]
    assert json.loads(lines[2].removeprefix("data: "))["video"]["prompt"] == record.prompt


@pytest.mark.parametrize("cls", list(STATUS))
def test_every_error_has_its_status_and_the_shape_clients_expect(cls: type[AdaptiveGenError]) -> None:
    status, body, headers = error_answer(cls("why", param="size"))
    assert status == STATUS[cls].http
    assert body == {"error": {"code": cls.code, "message": "why", "param": "size", "retryable": cls.retryable}}
    assert headers == {}


@pytest.mark.parametrize(("after_s", "header"), [(0.0, "1"), (0.2, "1"), (7.6, "8"), (7.2, "8")])
def test_a_refusal_for_now_says_in_whole_seconds_when_to_come_again(after_s: float, header: str) -> None:
    assert error_answer(ResourceExhausted("full", retry_after_s=after_s))[2] == {"retry-after": header}


@pytest.mark.parametrize(("eta_s", "expected"), [(0.0, 250), (4.0, 500), (1e9, 5000)])
def test_polling_is_neither_hasty_nor_forgotten(eta_s: float, expected: int) -> None:
    assert render.poll_after_ms(RECORD.model_copy(update={"eta_s": eta_s})) == expected


def test_a_page_names_its_ends() -> None:
    page = render.page(Page([RECORD, RECORD.model_copy(update={"id": "vid_2"})], has_more=True))
    assert (page["first_id"], page["last_id"], page["has_more"]) == (JOB_ID, "vid_2", True)
    assert render.page(Page([], has_more=False))["first_id"] is None
