"""What tenants have stored: at once when a job has made something, and right with the next count."""

from __future__ import annotations

from adaptivegen.errors import QuotaExceeded
from adaptivegen.placement import Decision, Outcome
from scheduler.decide.decide import record
from scheduler.decide.ledger import UNSEEN_S
from scheduler.decide.stored import MAX_HEARD, Stored
from tests.unit.scheduler.builders import NOW_NS, outcome, place, query, view
from tests.unit.scheduler.test_admission import limited, refused

LATER_NS = NOW_NS + 5 * 10**9


def made(number: int, **changes: object) -> Outcome:
    """Of a job of its own."""
    return outcome(place(view(), query(job_id=f"vid_{number:026d}")), **{"final_bytes": 400.0, **changes})


def test_what_jobs_have_made_counts_as_stored_at_once() -> None:
    seen = limited(stored_bytes=1000)
    seen.stored.by_tenant = {"local": 300}

    def make(number: int, **made: object) -> Decision:
        asked = query(job_id=f"vid_{number:026d}")
        decision = place(seen, asked)
        record(seen, asked, decision, now_ns=NOW_NS)
        told = outcome(decision, status="completed", tenant="other", **made)  # whose it is, its placing says
        for _ in range(2):  # the second is a repeat, as when an edge was not sure that the first was heard
            seen.ended(told, now_ns=NOW_NS + 5 * 10**9)
        return decision

    assert make(1, draft_bytes=100.0, final_bytes=400.0).plan == "refine"
    assert seen.stored.by_tenant == {"local": 800}
    assert make(2, plan="hit", final_bytes=400.0).plan == "refine"
    assert seen.stored.by_tenant == {"local": 800}  # a hit was stored before
    assert make(3, final_bytes=200.0).plan == "refine"
    assert refused(place(seen, query(job_id=f"vid_{4:026d}")), QuotaExceeded, param="stored_bytes") is None


def test_nothing_is_kept_of_what_is_stored_while_nobodys_is_limited() -> None:
    seen, asked = view(), query()
    decision = place(seen, asked)
    record(seen, asked, decision, now_ns=NOW_NS)
    seen.ended(outcome(decision, status="completed", tenant="local", final_bytes=400.0), now_ns=NOW_NS)
    assert seen.stored.by_tenant == {}


def test_what_a_job_made_counts_though_the_store_said_first_that_it_ended() -> None:
    """The edge fetches the final before it tells of it, and the job is not listed as open any more."""
    seen = limited(stored_bytes=1000)
    decision = place(seen)
    record(seen, query(), decision, now_ns=NOW_NS)
    later_ns = NOW_NS + round(2 * UNSEEN_S * 1e9)
    seen.jobs.forget_missing(lambda job_id: False, since_ns=later_ns, now_ns=later_ns)
    assert decision.job_id not in seen.jobs
    seen.ended(outcome(decision, tenant="local", final_bytes=400.0), now_ns=later_ns)
    assert seen.stored.by_tenant == {"local": 400}


def test_what_another_scheduler_placed_counts_here_too() -> None:
    """Edges tell every scheduler how jobs went."""
    placed, other = view(), limited(stored_bytes=1000)
    decision = place(placed)
    job = record(placed, query(), decision, now_ns=NOW_NS)
    assert job is not None
    other.hear_of(job, now_ns=NOW_NS)
    other.ended(outcome(decision, tenant="local", final_bytes=400.0), now_ns=LATER_NS)
    assert other.stored.by_tenant == {"local": 400}


def test_a_draft_and_its_final_count_though_the_final_was_asked_for_before_the_draft_was_told_of() -> None:
    stored = Stored()
    draft = made(1, final_bytes=0.0, draft_bytes=100.0)
    for told in (draft, draft, draft.model_copy(update={"decided_at_ns": 7, "final_bytes": 400.0, "draft_bytes": 0.0})):
        stored.made("t", told)
    assert stored.of("t") == 500


def test_what_is_made_while_a_count_goes_on_is_not_lost() -> None:
    stored = Stored()
    stored.made("t", made(1))
    stored.begin_count()
    stored.made("t", made(2))
    stored.counted({"t": 700, "u": 5})
    assert (stored.by_tenant, stored.counts) == ({"t": 1100, "u": 5}, 1)
    stored.begin_count()
    stored.made("t", made(3))
    stored.freed("t", 400)
    stored.counted({"t": 1100})
    assert stored.by_tenant == {"t": 1100}


def test_of_outcomes_that_were_heard_of_only_so_many_are_remembered() -> None:
    stored = Stored()
    for number in range(MAX_HEARD + 10):
        stored.made("t", made(0).model_copy(update={"job_id": str(number)}))
    assert len(stored._heard) == MAX_HEARD


def test_nobody_has_less_than_nothing() -> None:
    stored = Stored()
    stored.made("t", made(1))
    stored.freed("t", 500)
    stored.freed("u", 500)
    assert stored.by_tenant == {"t": 0}
