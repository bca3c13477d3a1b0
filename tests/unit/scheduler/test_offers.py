"""What edges offer, as a decision tells it: who has just come gets less, who has most ahead nothing, and who lies is
found out."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from adaptivegen.nodes import NodeReport
from adaptivegen.placement import Decision, PlacementQuery
from scheduler.decide.decide import decide, record
from scheduler.decide.health import LEAST_WEIGHT, SLOW_START_S
from scheduler.decide.select import SelectSettings
from scheduler.decide.view import View
from tests.unit.scheduler.builders import NOW_NS, draft_card, outcome, query, report, view

DIGEST = draft_card().digest
SECOND_NS = 10**9
FULL = {"remaining_s": 8.0, "in_flight": 1, "queued": 20}  # so that another drafts


def edge(number: int, /, **changes: object) -> NodeReport:
    return report(f"edge-{number}", grpc_address=f"127.0.0.1:{number}", lends=DIGEST, **changes)


def beat(seen: View, *heard: NodeReport, now_ns: int) -> None:
    """Heartbeats of all, and of a worker."""
    seq = 2 + (now_ns - NOW_NS) // (SECOND_NS // 2)
    for one in (*heard, report("worker-1")):
        seen.hear(one.model_copy(update={"seq": seq}), now_ns=now_ns)


def heard(*edges: NodeReport) -> View:
    found = view(*edges, report("worker-1"))
    found.select = SelectSettings(explore=0.0)
    return found


def ask(number: int = 0, **changes: object) -> PlacementQuery:
    return query(job_id=f"vid_{number:026d}", **{"draft_digest": DIGEST, **changes})


def place(seen: View, asked: PlacementQuery, *, now_ns: int, seed: int = 1) -> Decision:
    return decide(seen, asked, now_ns=now_ns, rng=random.Random(seed))


@pytest.mark.parametrize(("after_s", "weight"), [(0.5, LEAST_WEIGHT), (SLOW_START_S / 2, 0.5), (SLOW_START_S, 1.0)])
def test_an_edge_that_has_just_come_gets_a_smaller_chance_among_equals(after_s: float, weight: float) -> None:
    known, newcomer = (edge(1, **FULL), edge(2)), edge(3)
    seen = heard(*known)
    begun_ns = NOW_NS + int(SLOW_START_S * 2) * SECOND_NS
    beat(seen, *known, newcomer, now_ns=begun_ns)
    now_ns = begun_ns + int(after_s * SECOND_NS)
    beat(seen, *known, newcomer, now_ns=now_ns)
    places = {one.edge_id: one for one in place(seen, ask(), now_ns=now_ns).draft_places}
    assert places["edge-3"].draft_s == places["edge-2"].draft_s
    assert places["edge-2"].weight == 1.0
    assert places["edge-3"].weight == pytest.approx(weight)
    assert places["edge-3"].chance == pytest.approx(weight / (1.0 + weight))
    drafters = Counter(place(seen, ask(), now_ns=now_ns, seed=seed).drafter for seed in range(400))
    assert drafters["edge-3"] / 400 == pytest.approx(weight / (1.0 + weight), abs=0.08)


def test_a_hot_edge_is_not_taken_though_its_draft_would_be_the_soonest() -> None:
    slow_to_reach = {f"edge-{number}": 1.0 for number in range(3, 14)}
    home, hot = edge(1, **FULL, links={"edge-2": 0.0, **slow_to_reach}), edge(2, remaining_s=0.6, in_flight=1)
    cold = [edge(number, remaining_s=0.01 * number, in_flight=1) for number in range(3, 14)]
    seen = heard(home, hot, *cold)
    now_ns = NOW_NS + int(SLOW_START_S) * SECOND_NS
    beat(seen, home, hot, *cold, now_ns=now_ns)
    decision = place(seen, ask(), now_ns=now_ns)
    places = {one.edge_id: one for one in decision.draft_places}
    assert places["edge-2"].draft_s == min(one.draft_s for one in places.values())
    assert places["edge-2"].chance == 0.0
    assert decision.drafter in {one.node_id for one in cold}
    beat(seen, home, edge(2, remaining_s=0.01, in_flight=1), *cold, now_ns=now_ns + SECOND_NS)
    assert place(seen, ask(), now_ns=now_ns + SECOND_NS).drafter == "edge-2"  # when it has less ahead than most


def test_an_edge_that_says_it_is_idle_while_its_drafts_come_late_loses_the_drafts() -> None:
    """It tells neither of work ahead nor of what it has finished: only what the asking edge saw tells on it."""
    home, liar, honest = edge(1, **FULL), edge(2), edge(3, remaining_s=0.4, in_flight=1)
    seen = heard(home, liar, honest)
    now_ns, drafters = NOW_NS + int(SLOW_START_S) * SECOND_NS, []
    for number in range(30):
        now_ns += SECOND_NS // 2
        beat(seen, home, liar, honest, now_ns=now_ns)
        asked = ask(number)
        decision = place(seen, asked, now_ns=now_ns, seed=number)
        record(seen, asked, decision, now_ns=now_ns)
        drafters.append(decision.drafter)
        late = decision.drafter == "edge-2"
        now_ns += 4 * SECOND_NS if late else SECOND_NS // 2
        told = {"draft_s": 4.0 if late else 0.8, "drafted_by": "edge-3", "draft_late": late}
        seen.ended(outcome(decision, final_s=9.0, draft_model="pocket-draft", **told), now_ns=now_ns)
    assert drafters[0] == "edge-2"  # it is believed at first
    assert drafters.count("edge-2") <= 4  # once in ten seconds, when the warning has faded
