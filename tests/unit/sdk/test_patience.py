"""When a client tries again and when it gives up."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptivegen.errors import (
    AdaptiveGenError,
    DeadlineExceeded,
    GenerationFailed,
    InvalidRequest,
    NodeUnavailable,
    ResourceExhausted,
)
from adaptivegen.experience import Experience
from adaptivegen.sdk.models import Video, parse_video
from adaptivegen.sdk.patience import Backoff, Stopwatch, Waiting
from tests.unit.sdk.scripted import clip, video


def read(**changes: object) -> Video:
    return parse_video(json.dumps(video(**changes)).encode())


@given(seed=st.integers(0, 1000))
def test_pauses_grow_with_jitter_to_their_bound(seed: int) -> None:
    backoff = Backoff(budget_s=1e9, rng=random.Random(seed), first_s=0.1, longest_s=2.0)
    pauses_s = [backoff.pause_s(NodeUnavailable("away"), now_s=0.0) for _ in range(40)]
    for attempt, pause_s in enumerate(pauses_s):
        full_s = min(2.0, 0.1 * 2.0**attempt)
        assert full_s / 2 <= pause_s <= full_s


def test_the_budget_counts_from_the_first_failure_after_a_success() -> None:
    backoff = Backoff(budget_s=5.0, rng=random.Random(1))
    backoff.pause_s(NodeUnavailable("a"), now_s=100.0)
    backoff.succeeded()
    backoff.pause_s(NodeUnavailable("b"), now_s=104.9)
    with pytest.raises(NodeUnavailable, match="c"):
        backoff.pause_s(NodeUnavailable("c"), now_s=109.9)


@pytest.mark.parametrize("error", [InvalidRequest("x"), GenerationFailed("x"), DeadlineExceeded("x")])
def test_what_will_not_pass_is_raised_at_once(error: AdaptiveGenError) -> None:
    with pytest.raises(type(error)):
        Backoff(budget_s=10.0, rng=random.Random(1)).pause_s(error, now_s=0.0)


def test_retry_after_is_waited_for_or_raised_when_it_is_too_long() -> None:
    backoff = Backoff(budget_s=10.0, rng=random.Random(1))
    assert backoff.pause_s(ResourceExhausted("full", retry_after_s=7.0), now_s=0.0) == 7.0
    with pytest.raises(ResourceExhausted):
        backoff.pause_s(ResourceExhausted("full", retry_after_s=7.0), now_s=7.0)


def test_the_start_deadline_is_named_and_ends_when_work_begins() -> None:
    waiting = Waiting(now_s=0.0, start_timeout_s=3.0, timeout_s=10.0)
    assert waiting.remaining_s(now_s=1.0) == 2.0
    with pytest.raises(DeadlineExceeded, match=r"start: .* 3 s"):
        waiting.remaining_s(now_s=3.0)
    waiting.observe(read(status="in_progress"))
    assert waiting.remaining_s(now_s=4.0) == 6.0
    with pytest.raises(DeadlineExceeded, match=r"whole: .* 10 s"):
        waiting.remaining_s(now_s=10.0)


def test_the_draft_is_the_start_only_of_a_video_that_is_only_a_draft() -> None:
    refine = Waiting(now_s=0.0, start_timeout_s=3.0, timeout_s=None)
    refine.observe(read(plan="refine"), event_type="draft.look")
    with pytest.raises(DeadlineExceeded, match="start"):
        refine.remaining_s(now_s=3.0)
    draft = Waiting(now_s=0.0, start_timeout_s=3.0, timeout_s=None)
    draft.observe(read(plan="draft"), event_type="draft.started")
    assert draft.remaining_s(now_s=100.0) is None


def test_without_deadlines_there_is_no_end() -> None:
    assert Waiting(now_s=0.0, start_timeout_s=None, timeout_s=None).remaining_s(now_s=1e9) is None


def test_the_waits_of_a_rating_are_the_first_sights() -> None:
    watch = Stopwatch(submitted_at_s=10.0)
    drafted = read(draft=clip(b"x", "0" * 64))
    watch.observe(drafted, now_s=11.0)
    watch.observe(drafted, now_s=12.0)
    watch.observe(read(status="completed", final=clip(b"x", "0" * 64)), now_s=15.0)
    assert (watch.draft_wait_s, watch.final_wait_s) == (1.0, 5.0)
    stranger = Stopwatch(submitted_at_s=None)
    stranger.observe(drafted, now_s=11.0)
    assert stranger.draft_wait_s is None


def test_waits_that_are_given_stand_before_those_that_were_seen() -> None:
    watch = Stopwatch(submitted_at_s=10.0)
    watch.draft_wait_s = 0.4
    assert watch.experience(4, 0, 0.0, None, 6.5) == Experience(4, draft_wait_s=0.4, final_wait_s=6.5)
    assert watch.experience(3, 1, 2.0, 0.0, None) == Experience(3, draft_wait_s=0.0, stalls=1, stalled_s=2.0)
