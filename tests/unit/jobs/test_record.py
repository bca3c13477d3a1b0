"""Transitions of a job's record."""

import pytest

from adaptivegen.errors import Conflict, PreconditionFailed
from adaptivegen.jobs.record import (
    MAX_CLAIMS,
    JobRecord,
    apply_manifest,
    claim,
    decode_record,
    draft_stored,
    give_back,
    judge_claim,
    new_record,
    rebuild,
    renew,
    salvage,
    touched,
    upgrade,
)
from adaptivegen.jobs.spec import Failure, Manifest
from tests.jobs import draft_manifest, make_spec, media

S = 1_000_000_000


def claimed(*, attempts: int = 1) -> JobRecord:
    record = new_record(make_spec())
    for _ in range(attempts):
        record = claim(record, worker_id="w1", now_ns=10 * S, lease_s=30)
    return record


def completed(epoch: int = 1) -> Manifest:
    return Manifest(
        id="vid_x",
        tenant="t",
        outcome="completed",
        epoch=epoch,
        finished_at_ns=20 * S,
        worker_id="w1",
        final=media("f"),
        final_steps=4,
        plan="refine",
    )


def test_a_claim_takes_the_job_with_a_new_epoch() -> None:
    record = claimed()
    assert (record.status, record.epoch, record.attempts, record.worker_id) == ("in_progress", 1, 1, "w1")
    assert record.lease_expires_at_ns == 40 * S


def test_another_worker_waits_for_the_lease_and_then_fences_the_first_off() -> None:
    record = claimed()
    assert judge_claim(record, worker_id="w2", now_ns=39 * S, lease_s=30) == "held"
    with pytest.raises(Conflict):
        claim(record, worker_id="w2", now_ns=39 * S, lease_s=30)
    second = claim(record, worker_id="w2", now_ns=41 * S, lease_s=30)
    assert second.epoch == 2
    with pytest.raises(PreconditionFailed, match="epoch 2"):
        renew(second, epoch=1, worker_id="w1", now_ns=42 * S, lease_s=30, progress_percent=50, eta_s=1)


def test_the_same_worker_restarted_need_not_wait() -> None:
    assert judge_claim(claimed(), worker_id="w1", now_ns=11 * S, lease_s=30) == "claim"


def test_after_the_last_claim_the_job_is_poison() -> None:
    assert judge_claim(claimed(attempts=MAX_CLAIMS), worker_id="w1", now_ns=11 * S, lease_s=30) == "poison"


def test_progress_never_goes_back_and_stays_under_a_hundred() -> None:
    record = renew(claimed(), epoch=1, worker_id="w1", now_ns=11 * S, lease_s=30, progress_percent=100, eta_s=1)
    assert record.progress_percent == 99
    record = renew(record, epoch=1, worker_id="w1", now_ns=12 * S, lease_s=30, progress_percent=5, eta_s=1)
    assert record.progress_percent == 99


def test_epochs_that_begin_anew_after_a_lost_index_do_not_let_the_former_holder_in() -> None:
    begun_anew = claim(new_record(make_spec()), worker_id="w2", now_ns=11 * S, lease_s=30)
    with pytest.raises(PreconditionFailed, match="w2"):
        renew(begun_anew, epoch=1, worker_id="w1", now_ns=12 * S, lease_s=30, progress_percent=1, eta_s=1)


@pytest.mark.parametrize(("counts", "attempts"), [(False, 0), (True, 1)])
def test_a_job_given_back_is_free_at_once_and_remembers_why(counts: bool, attempts: int) -> None:
    why = Failure(code="storage_full", message="no space")
    record = give_back(claimed(), epoch=1, worker_id="w1", now_ns=12 * S, counts=counts, error=why)
    assert (record.status, record.attempts, record.epoch) == ("queued", attempts, 1)
    assert record.last_error == why
    assert judge_claim(record, worker_id="w2", now_ns=12 * S, lease_s=30) == "claim"
    with pytest.raises(PreconditionFailed, match="nobody"):
        give_back(record, epoch=1, worker_id="w1", now_ns=13 * S, counts=counts)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b"null", b'{"epoch": "many"}', b'{"status": "asleep", "epoch": true}']
)
def test_an_unreadable_record_is_no_record_and_what_counts_it_had_are_not_trusted_blindly(data: bytes) -> None:
    assert decode_record(data) is None
    rebuilt = new_record(make_spec())
    assert salvage(rebuilt, data) == rebuilt


def test_the_counts_of_another_versions_record_are_kept() -> None:
    held = claimed(attempts=2).encode().replace(b'"in_progress"', b'"paused_by_version_9"')
    assert decode_record(held) is None
    kept = salvage(new_record(make_spec()), held)
    assert (kept.status, kept.epoch, kept.attempts) == ("queued", 2, 2)


def test_only_open_jobs_are_touched() -> None:
    assert touched(claimed(), now_ns=99 * S).updated_at_ns == 99 * S
    ended = apply_manifest(claimed(), completed())
    assert touched(ended, now_ns=99 * S) == ended


def test_an_outcome_can_be_applied_twice_without_a_difference() -> None:
    once = apply_manifest(claimed(), completed())
    assert (once.status, once.progress_percent, once.final) == ("completed", 100, media("f"))
    assert apply_manifest(once, completed()) == once
    assert judge_claim(once, worker_id="w2", now_ns=10**15, lease_s=30) == "ended"


def test_a_late_draft_does_not_reopen_an_ended_job() -> None:
    record = draft_stored(apply_manifest(claimed(), completed()), draft_manifest())
    assert record.status == "completed"
    assert record.draft is not None


def test_a_draft_only_job_is_completed_by_its_draft_and_can_be_upgraded_once() -> None:
    record = draft_stored(new_record(make_spec(plan="draft", want_final=False)), draft_manifest())
    assert (record.status, record.final) == ("completed", None)
    wanted = upgrade(record, plan="refine", eta_s=3, now_ns=30 * S)
    assert (wanted.status, wanted.want_final, wanted.completed_at_ns) == ("queued", True, 0)
    assert upgrade(wanted, plan="refine", eta_s=3, now_ns=31 * S) == wanted


def test_a_cancelled_job_cannot_be_upgraded() -> None:
    cancelled = Manifest(id="vid_x", tenant="t", outcome="cancelled", epoch=0, finished_at_ns=1)
    record = apply_manifest(new_record(make_spec(plan="draft", want_final=False)), cancelled)
    with pytest.raises(Conflict, match="cancelled"):
        upgrade(record, plan="refine", eta_s=0, now_ns=2)


def test_the_record_is_rebuilt_from_the_store_alone() -> None:
    spec = make_spec()
    rebuilt = rebuild(spec, draft=draft_manifest(), manifest=completed())
    live = apply_manifest(draft_stored(claimed(), draft_manifest()), completed())
    ignored = {"attempts", "started_at_ns", "lease_expires_at_ns", "updated_at_ns", "progress_percent"}
    assert rebuilt.model_dump(exclude=ignored) == live.model_dump(exclude=ignored)
    assert rebuild(spec, draft=None, manifest=None).status == "queued"
