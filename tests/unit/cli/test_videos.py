"""How `adaptivegen videos` shows a page."""

from adaptivegen.sdk.models import Video, VideoPage
from cli.videos import as_object, line

LONG = Video(id="vid_1", status="queued", prompt="a red circle\n" * 20)


def test_a_video_is_one_line() -> None:
    assert line(LONG).startswith("vid_1  queued       -        a red circle a red circle")
    assert line(LONG).endswith("...") and "\n" not in line(LONG)


def test_a_page_as_json_says_whether_it_is_partial_and_whether_more_follow() -> None:
    shown = as_object(VideoPage([LONG], has_more=True, partial=True))
    assert (shown["partial"], shown["has_more"], shown["videos"][0]["id"]) == (True, True, "vid_1")
