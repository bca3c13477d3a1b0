"""What an edge decides when no scheduler answers."""

from typing import Any

import pytest

from adaptivegen.placement import Decision, PlacementQuery
from edge_node.alone import decide_alone
from tests.cards import cloud_card, draft_card


def decide(*, requested: str | None = None, can_draft: bool = True, refines: bool = True, steps: int = 0) -> Decision:
    query = PlacementQuery(
        job_id="vid_1",
        tenant="t",
        edge_id="edge-1",
        intent="render",
        draft_model="test-draft",
        cloud_model="test-cloud",
        width=256,
        height=256,
        frames=24,
        final_steps=steps,
        requested_plan=requested,
    )
    changes: dict[str, Any] = {} if refines else {"refine": None}
    return decide_alone(
        query,
        draft_card=draft_card(),
        cloud_card=cloud_card(**changes),
        can_draft=can_draft,
        pool="default",
        why="no scheduler answered",
        now_ns=7,
    )


@pytest.mark.parametrize(
    ("requested", "can_draft", "refines", "plan", "steps", "t0"),
    [
        (None, True, True, "refine", 4, 0.5),
        (None, False, True, "cloud", 8, None),
        (None, True, False, "cloud", 8, None),
        ("draft", True, True, "draft", 0, None),
        ("draft", False, True, "cloud", 8, None),
        ("cloud", True, True, "cloud", 8, None),
        ("refine", True, False, "cloud", 8, None),
        ("hit", True, True, "refine", 4, 0.5),
    ],
)
def test_the_plan_and_what_it_takes(
    requested: str | None, can_draft: bool, refines: bool, plan: str, steps: int, t0: float | None
) -> None:
    decision = decide(requested=requested, can_draft=can_draft, refines=refines)
    assert (decision.plan, decision.final_steps, decision.refine_t0) == (plan, steps, t0)
    chosen = decision.chosen()
    assert chosen is not None and chosen.feasible
    assert "alone: no scheduler answered" in decision.reasons[0]


def test_a_wish_that_cannot_be_met_is_said() -> None:
    assert any(
        "refine was asked for and is not possible" in why for why in decide(requested="refine", refines=False).reasons
    )


def test_asked_for_steps_are_kept() -> None:
    assert decide(steps=6).final_steps == 6
