"""Which edge drafts: home while it can, another when home is full, broken or away; sessions, trials, backups."""

import random
from collections import Counter
from collections.abc import Mapping

import pytest

from adaptivegen.models.card import ModelCard
from adaptivegen.nodes import Loading, NodeReport
from adaptivegen.placement import Attempt, Decision, PlacementQuery
from scheduler.decide.decide import decide, record
from scheduler.decide.drafters import MAX_TOLD, NEVER_S, UNTRIED_S
from scheduler.decide.health import FAILURES_IN_A_ROW, SLOW_START_S
from scheduler.decide.offers import UNKNOWN_HANDOVER_S
from scheduler.decide.select import SAMPLE, SelectSettings
from scheduler.decide.view import View
from tests.unit.scheduler.builders import NOW_NS, cloud_card, draft_card, outcome, query, report, view

DIGEST = draft_card().digest
DRAFT_S = 0.37  # of the builders' draft card
WARM_NS = NOW_NS + int(SLOW_START_S * 1e9)


def edge(number: int, /, **changes: object) -> NodeReport:
    values = {"grpc_address": f"127.0.0.1:{number}", "lends": DIGEST, **changes}
    return report(f"edge-{number}", **values)


def seen(*edges: NodeReport, explore: float = 0.0) -> View:
    """A view that has heard these edges and a worker long enough for slow start to be over."""
    found = view(*edges, report("worker-1"))
    found.select = SelectSettings(explore=explore)
    for heard in (*edges, report("worker-1")):
        found.hear(heard.model_copy(update={"seq": heard.seq + 1}), now_ns=WARM_NS)
    return found


def ask(**changes: object) -> PlacementQuery:
    return query(**{"draft_digest": DIGEST, **changes})


def asked(found: View, now_ns: int = WARM_NS, seed: int = 7, **changes: object) -> Decision:
    return decide(found, ask(**changes), now_ns=now_ns, rng=random.Random(seed))


def test_an_idle_home_drafts_and_another_edge_is_the_backup() -> None:
    decision = asked(seen(edge(1), edge(2)))
    assert decision.plan == "refine"
    assert decision.draft_edge_id == ""
    assert not decision.drafted_elsewhere
    assert decision.backup_edge_id == "edge-2"
    chosen = decision.chosen()
    assert chosen is not None
    assert decision.backup_after_s == chosen.draft_upper_s
    assert [p.edge_id for p in decision.draft_places] == ["edge-1", "edge-2"]
    assert decision.draft_places[1].draft_s == pytest.approx(DRAFT_S + UNKNOWN_HANDOVER_S)


def test_what_drafts_of_one_class_of_edges_were_off_by_teaches_nothing_of_another() -> None:
    """One drafts for itself, and one of its class for an edge of another that is full."""
    found = seen(
        edge(1, node_class="gpu"), edge(2, node_class="gpu"), edge(3, node_class="cpu", remaining_s=60.0, queued=5)
    )
    for number in range(40):
        query = ask(
            job_id=f"vid_{number:026d}",
            edge_id="edge-1" if number % 2 else "edge-3",
            intent="iterate",
            requested_plan="draft",
        )
        decision = decide(found, query, now_ns=WARM_NS, rng=random.Random(number))
        record(found, query, decision, now_ns=WARM_NS)
        chosen = decision.chosen()
        assert decision.drafter != "edge-3" and chosen is not None and chosen.draft_s is not None
        found.ended(outcome(decision, draft_s=2.0 * chosen.draft_s, drafted_by=decision.drafter), now_ns=WARM_NS)
    learned = {name: spread.seen for name, spread in found.learned.spreads}
    assert set(learned) == {"draft in gpu", "draft at a peer in gpu"} and sum(learned.values()) == 40


def test_a_full_home_has_its_draft_made_by_another() -> None:
    decision = asked(seen(edge(1, remaining_s=3.0, in_flight=1, queued=8), edge(2)))
    assert decision.drafted_elsewhere
    assert decision.draft_edge_id == "edge-2"
    assert decision.edge_id == "edge-1"
    address = decision.place("edge-2")
    assert address is not None
    assert address.address == "127.0.0.1:2"
    assert "Edge edge-2 drafts, since edge edge-1 has 3.0 s of work ahead." in decision.reasons
    chosen = decision.chosen()
    assert chosen is not None
    assert chosen.draft_s == pytest.approx(DRAFT_S + UNKNOWN_HANDOVER_S)
    assert decision.backup_edge_id == "edge-1"
    assert decision.backup_after_s == NEVER_S  # by the time that edge-2 is late, home would be later still


def test_a_version_that_is_tried_is_drafted_by_edges_that_have_loaded_it() -> None:
    both = {"models": ("pocket-draft", "pocket-draft-2"), "lends_also": ("new",)}
    only_old, loaded = edge(2), edge(3, **both)
    full = {"remaining_s": 3.0, "in_flight": 1, "queued": 8}
    tried = {"draft_model": "pocket-draft-2", "draft_digest": "new"}
    found = seen(edge(1, **both, **full), only_old, loaded)
    found.cards = {**found.cards, "pocket-cloud": cloud_card_of("pocket-draft", "pocket-draft-2")}
    asking = asked_for(tried, "pocket-draft")
    decision = decide(found, asking, now_ns=WARM_NS, rng=random.Random(7))  # by its line's card, having none of its own
    assert (decision.plan, decision.draft_edge_id, decision.backup_edge_id) == ("refine", "edge-3", "edge-1")
    assert {place.edge_id for place in decision.draft_places} == {"edge-1", "edge-3"}
    assert {place.edge_id for place in asked(found).draft_places} == {"edge-1", "edge-2", "edge-3"}
    unknown = decide(found, asked_for(tried, ""), now_ns=WARM_NS, rng=random.Random(7))
    assert unknown.plan == "cloud" and any("no model card pocket-draft-2" in c.reason for c in unknown.candidates)


def test_an_edge_drafts_with_the_version_it_has_while_the_one_that_serves_is_loaded_again() -> None:
    again = (Loading(model="pocket-draft", elapsed_s=1.0, expected_s=60.0),)
    reloading = {"models": ("pocket-draft", "pocket-draft-2"), "lends_also": ("new",), "ready": False, "loading": again}
    found = seen(edge(1, **reloading), edge(2, **reloading))
    found.cards = {**found.cards, "pocket-cloud": cloud_card_of("pocket-draft", "pocket-draft-2")}
    tried = asked_for({"draft_model": "pocket-draft-2", "draft_digest": "new"}, "pocket-draft")
    decision = decide(found, tried, now_ns=WARM_NS, rng=random.Random(7))
    assert (decision.plan, decision.draft_edge_id, decision.backup_edge_id) == ("refine", "", "edge-2")
    chosen = decision.chosen()
    assert chosen is not None
    assert chosen.draft_s == pytest.approx(DRAFT_S)  # at once
    serving = asked(found).chosen()
    assert serving is not None
    assert serving.draft_s is None or serving.draft_s > 50.0  # for the other the load is waited for


def asked_for(tried: Mapping[str, str], line: str) -> PlacementQuery:
    return ask(**tried, draft_line=line)


def cloud_card_of(*sources: str) -> ModelCard:
    card = cloud_card()
    assert card.refine is not None
    return card.model_copy(update={"refine": card.refine.model_copy(update={"sources": sources})})


def test_what_handing_over_takes_is_what_the_asking_edge_says() -> None:
    full = edge(1, remaining_s=1.0, in_flight=1, links={"edge-2": 2.0, "edge-3": 0.2})
    decision = asked(seen(full, edge(2), edge(3)))
    assert decision.draft_edge_id == "edge-3"
    far = asked(seen(edge(1, remaining_s=1.0, in_flight=1, links={"edge-2": 2.0}), edge(2)))
    assert far.draft_edge_id == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ready": False}, "is not ready to draft"),
        ({"draining": True}, "is being drained"),
        ({"models": ("other",)}, "does not serve pocket-draft"),
        ({"failed_in_row": FAILURES_IN_A_ROW}, "have failed time and again"),
    ],
)
def test_a_home_that_cannot_draft_is_helped_by_another(changes: dict[str, object], why: str) -> None:
    decision = asked(seen(edge(1, **changes), edge(2)))
    assert decision.plan == "refine"
    assert decision.draft_edge_id == "edge-2"
    assert why in " ".join(decision.reasons)


@pytest.mark.parametrize(
    "changes",
    [
        {"ready": False},
        {"draining": True},
        {"models": ("other",)},
        {"grpc_address": ""},
        {"lends": ""},
        {"lends": "f" * 64},
    ],
)
def test_an_edge_that_cannot_draft_is_not_asked_to(changes: dict[str, object]) -> None:
    found = seen(edge(1, remaining_s=9.0, in_flight=1), edge(2, **changes))
    assert asked(found).draft_edge_id == ""


def test_a_silent_edge_is_not_asked_to() -> None:
    found = seen(edge(1, remaining_s=9.0, in_flight=1), edge(2))
    later = WARM_NS + 10**10
    found.hear(edge(1, seq=9, remaining_s=9.0, in_flight=1), now_ns=later)
    assert asked(found, later).draft_edge_id == ""


def test_an_edge_that_fails_others_is_left_out_and_comes_back() -> None:
    full = edge(1, remaining_s=2.0, in_flight=1)
    found = seen(full, edge(2), edge(3, remaining_s=1.0, in_flight=1))
    assert asked(found).draft_edge_id == "edge-2"
    for _ in range(FAILURES_IN_A_ROW):
        found.attempted(Attempt(node_id="edge-2", reporter="edge-1", ok=False), now_ns=WARM_NS)
        found.attempted(Attempt(node_id="worker-1", reporter="edge-1", ok=False), now_ns=WARM_NS)
    assert asked(found).draft_edge_id == "edge-3"
    assert found.workers("pocket-cloud", now_ns=WARM_NS)  # edges have nothing to tell of workers
    assert state_of(found, "edge-2") == "healthy"  # for all others
    found.hear(edge(2, seq=9, failed_in_row=FAILURES_IN_A_ROW), now_ns=WARM_NS)
    assert state_of(found, "edge-2") == "ejected"
    later = WARM_NS + 100 * 10**9
    for heard in (full, edge(2), edge(3, remaining_s=1.0, in_flight=1)):
        found.hear(heard.model_copy(update={"seq": 10}), now_ns=later)
    assert asked(found, later).draft_edge_id == "edge-2"


def state_of(found: View, node_id: str) -> str:
    node = found.nodes.get(node_id)
    assert node is not None
    return found.state(node, WARM_NS)


def test_the_only_edge_drafts_whatever_it_has_failed_at() -> None:
    found = seen(edge(1, failed_in_row=100))
    assert asked(found).plan == "refine"


def test_full_edges_share_what_is_too_much_for_them() -> None:
    found = seen(edge(1, remaining_s=30.0, in_flight=1), *(edge(number) for number in range(2, 7)))
    taken: Counter[str] = Counter()
    rng = random.Random(3)
    for number in range(200):
        asking = ask(job_id=f"vid_{number}", intent="iterate", requested_plan="draft")
        decision = decide(found, asking, now_ns=WARM_NS, rng=rng)
        record(found, asking, decision, now_ns=WARM_NS)
        taken[decision.draft_edge_id or "edge-1"] += 1
    assert all(taken[f"edge-{number}"] >= 20 for number in range(2, 7)), taken


def test_a_session_stays_at_its_edge_when_home_is_free_again() -> None:
    found = seen(edge(1, remaining_s=2.0, in_flight=1), edge(2), edge(3))
    first = asked(found, session="s")
    record(found, ask(session="s"), first, now_ns=WARM_NS)
    assert first.drafted_elsewhere
    found.hear(edge(1, seq=9), now_ns=WARM_NS)
    found.hear(edge(first_number(first), seq=9), now_ns=WARM_NS)
    again = asked(found, session="s")
    assert again.draft_edge_id == first.draft_edge_id
    assert "as it did for this session" in " ".join(again.reasons)
    assert asked(found).draft_edge_id == ""


def first_number(decision: Decision) -> int:
    return int(decision.draft_edge_id.rpartition("-")[2])


def test_a_session_leaves_an_edge_that_fills_up_for_good() -> None:
    found = seen(edge(1), edge(2))
    record(found, ask(session="s"), asked(found, session="s"), now_ns=WARM_NS)
    where = []
    for second in range(1, 10):
        now_ns = WARM_NS + second * 10**9
        for heard in (edge(1, seq=9 + second, remaining_s=5.0, in_flight=1), edge(2, seq=9 + second)):
            found.hear(heard, now_ns=now_ns)
        decision = asked(found, now_ns, session="s", intent="iterate")
        record(found, ask(session="s", intent="iterate"), decision, now_ns=now_ns)
        where.append(decision.draft_edge_id or "edge-1")
    assert where == ["edge-1"] * 4 + ["edge-2"] * 5


def test_a_session_leaves_an_edge_that_dies_at_once() -> None:
    found = seen(edge(1, remaining_s=2.0, in_flight=1), edge(2), edge(3, remaining_s=0.5, in_flight=1))
    record(found, ask(session="s"), asked(found, session="s"), now_ns=WARM_NS)
    found.hear(edge(2, seq=9, ready=False), now_ns=WARM_NS)
    assert asked(found, session="s").draft_edge_id == "edge-3"


def test_an_edge_nothing_was_sent_to_is_tried_now_and_then() -> None:
    found = seen(edge(1), edge(2), explore=0.02)
    rng = random.Random(5)
    drawn = [decide(found, ask(), now_ns=WARM_NS, rng=rng) for _ in range(2000)]
    tried = [decision for decision in drawn if decision.drafted_elsewhere]
    assert 15 <= len(tried) <= 70
    assert {decision.propensity for decision in tried} == {0.02}
    assert {decision.propensity for decision in drawn if not decision.drafted_elsewhere} == {0.98}
    assert {p.edge_id: p.chance for p in tried[0].draft_places} == {"edge-1": 0.98, "edge-2": 0.02}
    assert {decision.plan for decision in drawn} == {"refine"}
    assert "so that it is known how long that takes" in " ".join(tried[0].reasons)
    record(found, ask(), tried[0], now_ns=WARM_NS)
    assert not any(decide(found, ask(), now_ns=WARM_NS, rng=rng).drafted_elsewhere for _ in range(2000))
    later = WARM_NS + int(UNTRIED_S * 1e9)
    for number in (1, 2):
        found.hear(edge(number, seq=9), now_ns=later)
    assert any(decide(found, ask(), now_ns=later, rng=rng).drafted_elsewhere for _ in range(2000))


def test_an_edge_that_would_be_late_is_not_tried() -> None:
    found = seen(edge(1, links={"edge-2": 8.0}), edge(2), explore=0.02)
    rng = random.Random(5)
    assert not any(decide(found, ask(), now_ns=WARM_NS, rng=rng).drafted_elsewhere for _ in range(2000))


def test_of_many_edges_some_are_looked_at() -> None:
    found = seen(edge(1, remaining_s=9.0, in_flight=1), *(edge(number) for number in range(2, 200)))
    decision = asked(found)
    assert decision.drafted_elsewhere
    assert len(decision.draft_places) == min(MAX_TOLD, SAMPLE + 1)
    assert len({asked(found, seed=seed).draft_edge_id for seed in range(30)}) > 10


def test_a_draft_that_is_there_is_made_nowhere() -> None:
    decision = asked(seen(edge(1), edge(2)), draft_known=True, requested_plan="refine")
    assert (decision.draft_edge_id, decision.backup_edge_id, decision.draft_places) == ("", "", ())


def test_the_drafting_edge_is_charged_and_not_the_asking_one() -> None:
    found = seen(edge(1, remaining_s=3.0, in_flight=1), edge(2))
    decision = asked(found)
    record(found, ask(), decision, now_ns=WARM_NS)
    assert {n.report.node_id: n.dispatched_s for n in found.nodes if n.report.kind == "edge"} == {
        "edge-1": 0.0,
        "edge-2": pytest.approx(DRAFT_S),
    }


def test_a_draft_made_elsewhere_than_decided_teaches_nothing() -> None:
    found = seen(edge(1, remaining_s=3.0, in_flight=1), edge(2))
    peers = {"draft at a peer", "final refine"}
    for by, late, parts in (
        ("edge-1", False, {"final refine"}),  # it had failed
        ("", False, {"final refine"}),  # an edge that does not say it cannot have asked another
        ("edge-2", False, peers),
        ("edge-1", True, peers),  # the one that was to draft would have taken longer still
    ):
        decision = asked(found)
        record(found, ask(), decision, now_ns=WARM_NS)
        told = outcome(decision, draft_s=5.0, final_s=7.0, drafted_by=by, draft_late=late)
        assert set(found.ended(told, now_ns=NOW_NS)) == parts


def test_an_edge_that_knows_nothing_of_others_drafts_for_itself() -> None:
    found = seen(edge(1, remaining_s=9.0, in_flight=1), edge(2))
    assert asked(found, draft_digest="").draft_edge_id == ""


def test_a_session_is_not_tried_elsewhere() -> None:
    found = seen(edge(1), edge(2), explore=0.02)
    rng = random.Random(5)
    drawn = [decide(found, ask(session="s"), now_ns=WARM_NS, rng=rng) for _ in range(1000)]
    assert not any(decision.drafted_elsewhere for decision in drawn)


def test_a_single_decision_is_the_same_for_the_same_chance() -> None:
    found = seen(edge(1, remaining_s=9.0, in_flight=1), *(edge(number) for number in range(2, 40)), explore=0.02)
    assert asked(found) == asked(found)


def test_an_edge_that_has_just_failed_is_left_for_one_that_is_a_little_later() -> None:
    found = seen(edge(1), edge(2, remaining_s=0.1, in_flight=1))
    assert asked(found).drafter == "edge-1"
    found.healths.hear("edge-1", 1, now_s=WARM_NS / 1e9)
    assert asked(found).drafter == "edge-2"
    assert asked(found, now_ns=WARM_NS + 6 * 10**9).drafter == "edge-1"


def why_elsewhere(found: View) -> str:
    """What a decision says of another edge that drafts because home is behind it."""
    decision = asked(found)
    assert decision.draft_edge_id == "edge-2"
    return next(said for said in decision.reasons if said.startswith("Edge edge-2 drafts"))


def test_a_home_that_is_slow_is_said_to_be_slow_and_not_busy() -> None:
    found = seen(edge(1), edge(2))
    for at_s in range(20):
        for name, observed_s in (("edge-1", 4 * DRAFT_S), ("edge-2", DRAFT_S)):
            found.learned.speeds.observe(
                name, "edge", "pocket-draft", observed_s=observed_s, predicted_s=DRAFT_S, now_s=float(at_s)
            )
    said = why_elsewhere(found)
    factor = found.learned.edge_factor("edge-1", "pocket-draft") / found.learned.edge_factor("edge-2", "pocket-draft")
    assert said == f"Edge edge-2 drafts, since edge edge-1 takes {factor:.1f} times as long for a draft."


def test_a_home_that_has_just_failed_is_said_to_have_failed_and_not_to_be_busy() -> None:
    found = seen(edge(1), edge(2))
    found.healths.hear("edge-1", 1, now_s=WARM_NS / 1e9)
    assert why_elsewhere(found) == "Edge edge-2 drafts, since edge edge-1 has just failed."


def test_a_home_that_loads_its_model_is_said_to_load_it() -> None:
    told = (Loading(model="pocket-draft", elapsed_s=0.0, expected_s=5.0),)
    found = seen(edge(1, ready=False, models=(), line="pocket-draft", loading=told, started_at_ns=5), edge(2))
    assert why_elsewhere(found) == "Edge edge-2 drafts, since edge edge-1 loads its draft model, for about 5.0 s more."


def test_all_that_keeps_a_home_from_drafting_soon_is_said() -> None:
    found = seen(edge(1, remaining_s=3.0, in_flight=1, queued=8), edge(2))
    found.healths.hear("edge-1", 1, now_s=WARM_NS / 1e9)
    assert why_elsewhere(found).endswith("since edge edge-1 has 3.0 s of work ahead and has just failed.")
