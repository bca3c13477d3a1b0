"""What a client says of a video is checked field by field."""

import math
from typing import Any

import pytest

from adaptivegen.errors import InvalidRequest
from adaptivegen.experience import Experience


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"stars": 0}, "stars"),
        ({"stars": 6}, "stars"),
        ({"stars": True}, "stars"),
        ({"stars": None}, "stars"),
        ({"draft_wait_s": -0.1}, "draft_wait_s"),
        ({"draft_wait_s": math.nan}, "draft_wait_s"),
        ({"final_wait_s": math.inf}, "final_wait_s"),
        ({"final_wait_s": 1e6}, "final_wait_s"),
        ({"stalls": -1}, "stalls"),
        ({"stalls": 1.5}, "stalls"),
        ({"stalls": 10**9}, "stalls"),
        ({"stalled_s": -1.0}, "stalled_s"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Experience(**{"stars": 3, **changes}).check()
    assert refused.value.param == field


def test_waits_that_were_not_seen_are_no_error() -> None:
    Experience(5, draft_wait_s=None, final_wait_s=0.0, stalls=3, stalled_s=2.5).check()
