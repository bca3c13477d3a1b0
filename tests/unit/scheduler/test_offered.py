"""Plans that need parts which not every node has: scored from cards alone, and weighed only where nodes offer them."""

import random

import pytest

from adaptivegen.models.card import ModelCard, NoisePath, Split
from adaptivegen.nodes import STORE_GET, Way
from adaptivegen.placement import Decision, PlacementQuery
from scheduler.decide.decide import decide, record
from scheduler.decide.plans import NEAR_ENOUGH
from scheduler.decide.qoe import QoeSettings, patience, qoe
from scheduler.decide.split import split_obstacle, split_work
from scheduler.decide.view import View
from scheduler.decide.work import work_of
from tests.unit.scheduler.builders import (
    NOW_NS,
    cards,
    cloud_card,
    draft_card,
    of_plan,
    place,
    query,
    report,
    scored,
    view,
    with_scores,
)

PATH = NoisePath(shape=(8, 48, 48, 3), sampler="euler", sigmas="linear", files=("base",))
LATENTS = 2 * 8 * 48 * 48 * 3
SPLIT = Split(finishers=("pocket-draft",), until=0.5, steps=6, finish_steps=2)
SMALL = {"width": 128, "height": 128}
SHAPE = {"width": 128, "height": 128, "frames": 24}
FAST = Way(delay_s=0.0, bytes_per_s=1e9)


def pair(*, split: Split | None = SPLIT, draft_path: NoisePath | None = PATH) -> tuple[ModelCard, ModelCard]:
    """A draft of 0.37 s, of which two steps, enlarging and encoding are 0.27 s; a final whose steps take 0.125 s."""
    draft = draft_card().model_copy(update={"path": draft_path})
    cloud = with_scores(cloud_card(), scored("split", 6, 128, 4.1), scored("cloud", 24, 128, 4.4))
    return draft, cloud.model_copy(update={"path": PATH, "split": split})


def offering(
    *parts: str,
    models: tuple[ModelCard, ModelCard] | None = None,
    edge: dict[str, object] | None = None,
    worker: dict[str, object] | None = None,
) -> View:
    """One edge and one worker that have these parts."""
    first = report("edge-1", **{"parts": parts, **(edge or {})})
    second = report("worker-1", **{"parts": parts, **(worker or {})})
    return view(first, second, models=cards(*(models or pair())))


def near(**changes: object) -> PlacementQuery:
    """A query to whose prompt there is a stored video of a similar one."""
    return query(**{"near_similarity": 0.95, "near_model": "pocket-cloud", "near_bytes": 1e6, **changes})


def plans(decision: Decision) -> list[str]:
    return [candidate.plan for candidate in decision.candidates]


# ---- scores -----------------------------------------------------------------------------------------------------


def test_the_work_of_a_split_is_that_of_its_steps_and_only_the_edge_enlarges_and_encodes() -> None:
    draft, cloud = pair()
    work = split_work(cloud, draft, **SHAPE, steps=6)
    assert work is not None
    assert work.begin.generate_s == pytest.approx(0.02 + 6 * 0.125)
    assert work.begin.total_s == work.begin.generate_s
    assert work.finish == work_of(draft, width=128, height=128, frames=24, steps=2)
    assert work.finish.total_s == pytest.approx(0.02 + 2 * 0.05 + 0.1 + 0.05)
    assert work.latents_bytes == LATENTS


@pytest.mark.parametrize("unknown", [{"profile": ()}, {"split": None}])
def test_without_measured_times_or_a_split_there_is_no_such_work(unknown: dict[str, object]) -> None:
    draft, cloud = pair()
    assert split_work(cloud.model_copy(update=unknown), draft, **SHAPE, steps=6) is None
    assert split_work(cloud, draft.model_copy(update={"profile": ()}), **SHAPE, steps=6) is None


@pytest.mark.parametrize(
    ("models", "shape", "why"),
    [
        (pair(), SHAPE, ""),
        (pair(split=None), SHAPE, "pocket-cloud begins no videos for pocket-draft"),
        (pair(split=SPLIT.model_copy(update={"finishers": ("other",)})), SHAPE, "begins no videos for pocket-draft"),
        (pair(draft_path=None), SHAPE, "are an advisory pair: the card of pocket-draft tells of no path"),
        (pair(), {**SHAPE, "width": 256}, "pocket-draft makes no videos of 256x128 with 24 frames"),
        (pair(), {**SHAPE, "frames": 48}, "pocket-draft makes no videos of 128x128 with 48 frames"),
    ],
)
def test_a_pair_can_split_what_its_cards_say(
    models: tuple[ModelCard, ModelCard], shape: dict[str, int], why: str
) -> None:
    draft, cloud = models
    found = split_obstacle(cloud, draft, **shape)
    assert found.endswith(why)
    assert bool(found) == bool(why)


def test_a_split_waits_for_the_worker_then_for_its_latents_and_the_edge_and_costs_the_cloud_its_steps_alone() -> None:
    way = Way(delay_s=0.5, bytes_per_s=LATENTS)
    seen = offering("split", worker={"ways": {"edge-1": way}, "in_flight": 1, "remaining_s": 4.0})
    made = of_plan(place(seen, query(**SMALL)), "split")
    assert made.feasible
    assert made.gpu_s == pytest.approx(0.77)
    assert made.transfer_s == pytest.approx(1.5)
    assert made.final_s == pytest.approx(4.0 + 0.77 + 1.5 + 0.27)
    assert made.final_s is not None and made.final_upper_s is not None and made.final_upper_s > made.final_s
    assert made.first_look_s == pytest.approx(4.0 + 0.02 + 0.125)
    assert made.draft_s is None
    assert made.moved_bytes == pytest.approx(LATENTS + 0.03 * 128 * 128 * 24)
    expected = qoe(
        QoeSettings(), intent="render", draft_quality=1, draft_s=None, final_quality=4.1, final_s=made.final_s
    )
    assert made.qoe == pytest.approx(expected)  # of the measured quality of such clips


def test_a_split_waits_for_a_busy_edge() -> None:
    seen = offering("split", edge={"remaining_s": 9.0, "in_flight": 1})
    made = of_plan(place(seen, query(**SMALL)), "split")
    assert made.final_s == pytest.approx(9.0 + 0.27)
    assert made.first_look_s is not None and made.first_look_upper_s is None  # of which nothing is learned


def test_a_near_hit_is_shown_when_it_is_fetched_and_is_worth_what_its_prompt_has_in_common() -> None:
    seen = offering("near-hit", edge={"ways": {STORE_GET: Way(delay_s=0.2, bytes_per_s=1e6)}})
    asked = near(intent="iterate")
    made = of_plan(place(seen, asked), "near-hit")
    assert made.feasible
    assert made.draft_s == made.first_look_s == pytest.approx(1.2)
    assert (made.final_s, made.gpu_s) == (None, 0)
    assert made.moved_bytes == 1e6
    shown = 1 + 0.95 * (4.4 - 1)
    assert made.qoe == pytest.approx(1 + 0.5 * (shown - 1) * patience(1.2, best_s=0.5, worst_s=10.0))
    cached = of_plan(place(seen, near(intent="iterate", near_bytes=0.0)), "near-hit")
    assert cached.draft_s == cached.draft_upper_s == 0.0


def test_the_quality_of_a_near_video_of_an_unknown_model_is_assumed() -> None:
    made = of_plan(place(offering("near-hit"), near(intent="iterate", near_model="gone")), "near-hit")
    assert made.qoe == pytest.approx(1 + 0.5 * 0.95 * (QoeSettings().unmeasured_draft - 1))


def test_the_final_beside_a_near_hit_is_made_from_noise() -> None:
    decision = place(offering("near-hit"), near())
    made, cloud = of_plan(decision, "near-hit"), of_plan(decision, "cloud")
    assert (made.final_s, made.gpu_s) == (cloud.final_s, cloud.gpu_s)
    assert made.moved_bytes == cloud.moved_bytes + 1e6
    assert made.makes_final
    assert made.score > cloud.score  # since something is seen before it


# ---- the gate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [near(), near(intent="iterate"), near(**SMALL), query(**SMALL)])
def test_what_no_node_offers_is_no_candidate_and_changes_no_decision(asked: PlacementQuery) -> None:
    plain = place(offering(), asked)
    assert plans(plain) == ["hit", "draft", "refine", "cloud", "reduced"]
    unaware = asked.model_copy(update={"near_similarity": 0.0, "near_model": "", "near_bytes": 0.0})
    bare = view(report("edge-1"), report("worker-1"), models=cards(*pair(split=None, draft_path=None)))
    other = place(bare, unaware)
    assert plain == other


@pytest.mark.parametrize(
    ("edge", "worker", "weighed"),
    [
        (("split", "near-hit"), ("split",), ["near-hit", "split"]),
        (("near-hit",), ("split", "near-hit"), ["near-hit"]),
        (("split",), (), []),  # nobody would begin it
        ((), ("split",), []),  # nobody would finish it
        (("teleport",), ("teleport",), []),  # of a newer version
    ],
)
def test_a_plan_is_weighed_where_all_that_would_carry_it_out_offer_its_part(
    edge: tuple[str, ...], worker: tuple[str, ...], weighed: list[str]
) -> None:
    seen = offering(edge={"parts": edge}, worker={"parts": worker})
    assert plans(place(seen, near(**SMALL)))[5:] == weighed


def test_one_worker_of_the_pool_that_cannot_begin_a_split_closes_the_gate() -> None:
    models = cards(*pair())
    able, unable = report("worker-1", parts=("split",)), report("worker-2")
    assert "split" in plans(place(view(report("edge-1", parts=("split",)), able, models=models), query(**SMALL)))
    seen = view(report("edge-1", parts=("split",)), able, unable, models=models)
    assert "split" not in plans(place(seen, query(**SMALL)))


@pytest.mark.parametrize("plan", ["near-hit", "split"])
def test_asked_for_and_not_offered_it_is_said_that_no_node_offers_it(plan: str) -> None:
    decision = place(offering(), near(**SMALL, requested_plan=plan))
    assert decision.plan == "refine"
    assert decision.reasons[0] == f"Plan {plan} was asked for and is not possible: no node offers what it needs."


# ---- choices ----------------------------------------------------------------------------------------------------


def test_a_split_that_is_asked_for_is_taken_with_its_steps() -> None:
    decision = place(offering("split"), query(**SMALL, requested_plan="split"))
    assert (decision.plan, decision.final_steps, decision.refine_t0) == ("split", 6, None)
    assert decision.makes_final and not decision.makes_draft


def test_a_split_beats_a_whole_final_where_others_wait_for_the_cloud() -> None:
    busy = offering("split", worker={"in_flight": 1, "remaining_s": 60.0})
    for number in range(12):
        waits = query(job_id=f"vid_{number:026d}", requested_plan="cloud")
        record(busy, waits, place(busy, waits), now_ns=NOW_NS)
    decision = place(busy, query(**SMALL))
    assert of_plan(decision, "split").score > of_plan(decision, "cloud").score


def test_the_split_is_taken_where_it_scores_best_and_says_who_does_what() -> None:
    draft, cloud = pair()
    no_refine = cloud.model_copy(update={"refine": None})
    seen = offering("split", models=(draft, no_refine))
    seen.policy = seen.policy.but({"cost_render": 0.5})
    decision = place(seen, query(**SMALL))
    assert decision.plan == "split"
    made = decision.chosen()
    assert made is not None
    assert made.reason.endswith("and edge edge-1 finishes it: the pair is resumable")
    assert any("0.8 cloud seconds" in reason for reason in decision.reasons)
    before_s = of_plan(decision, "cloud").final_s
    record(seen, query(**SMALL), decision, now_ns=NOW_NS)
    job = seen.jobs.get(decision.job_id)
    assert job is not None and job.gpu_s == pytest.approx(made.gpu_s)
    after = place(seen, query(job_id="vid_" + "1" * 26, **SMALL))
    assert before_s is not None
    assert of_plan(after, "cloud").final_s == pytest.approx(before_s + job.work_s)
    edge = seen.nodes.get("edge-1")
    assert edge is not None and edge.dispatched_s == pytest.approx(0.27)  # which it has ahead


def test_a_near_hit_is_taken_where_the_edges_are_too_busy_to_draft_and_never_silently() -> None:
    seen = offering("near-hit", edge={"remaining_s": 30.0, "in_flight": 1})
    decision = place(seen, near(intent="iterate", near_bytes=0.0))
    assert (decision.plan, decision.final_steps, decision.makes_final, decision.makes_draft) == (
        "near-hit",
        0,
        False,
        False,
    )
    assert any("is another video" in reason for reason in decision.reasons)
    assert record(seen, near(intent="iterate"), decision, now_ns=NOW_NS) is None
    render = place(seen, near(near_bytes=0.0))
    assert (render.plan, render.final_steps, render.makes_final) == ("near-hit", 24, True)
    assert record(seen, near(), render, now_ns=NOW_NS) is not None
    idle = place(offering("near-hit"), near(intent="iterate", near_bytes=0.0, near_model="gone"))
    assert idle.plan == "draft"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"near_similarity": NEAR_ENOUGH - 0.01}, "the nearest has a similarity of 0.89, needed: 0.9"),
        ({"near_similarity": 0.0}, "none is known, needed: 0.9"),
        ({"has_reference": True}, "begins from frames of its own"),
        ({"draft_known": True}, "a draft that is there already"),
    ],
)
def test_a_near_hit_that_would_not_do_is_told_with_the_reason(changes: dict[str, object], why: str) -> None:
    made = of_plan(place(offering("near-hit"), near(**changes)), "near-hit")
    assert not made.feasible
    assert why in made.reason


@pytest.mark.parametrize(
    ("changes", "edge", "why"),
    [
        ({"has_reference": True}, {}, "begins from frames of its own"),
        ({"draft_known": True}, {}, "begins from a draft"),
        ({"width": 256}, {}, "makes no videos of 256x128"),
        ({"draft_model": "gone"}, {}, "no model card gone"),
        ({}, {"ready": False}, "edge edge-1 is loading"),
        ({}, {"models": ("other",)}, "edge edge-1 does not serve pocket-draft"),
    ],
)
def test_a_split_that_cannot_be_is_told_with_the_reason(
    changes: dict[str, object], edge: dict[str, object], why: str
) -> None:
    made = of_plan(place(offering("split", edge=edge), query(**{**SMALL, **changes})), "split")
    assert not made.feasible
    assert why in made.reason


def test_a_split_is_barred_as_every_final_is() -> None:
    late = place(offering("split"), query(**SMALL, deadline_s=0.1))
    assert "its deadline is 0.1 s" in of_plan(late, "split").reason


# ---- what a refine begins from --------------------------------------------------------------------------------------


def test_a_refine_begins_from_latents_where_the_pair_is_resumable_and_both_sides_can() -> None:
    ways = {"edge-1": Way(delay_s=0.0, bytes_per_s=1e6)}
    plain = of_plan(place(offering(worker={"ways": ways})), "refine")
    resumed = of_plan(place(offering("latents", worker={"ways": ways})), "refine")
    draft_bytes = 0.03 * 128 * 128 * 24
    assert resumed.moved_bytes - plain.moved_bytes == pytest.approx(LATENTS - draft_bytes)
    assert resumed.transfer_s - plain.transfer_s == pytest.approx((LATENTS - draft_bytes) / 1e6)
    assert resumed.reason.endswith("which takes the draft's latents")


@pytest.mark.parametrize("case", ["advisory", "worker", "edge", "known"])
def test_else_a_refine_begins_from_frames(case: str) -> None:
    models = pair(draft_path=None) if case == "advisory" else pair()
    seen = offering(
        "latents",
        models=models,
        worker={"parts": ()} if case == "worker" else {},
        edge={"parts": ("other",)} if case == "edge" else {},
    )
    asked = query(draft_known=case == "known")
    plain = of_plan(place(offering(models=models), asked), "refine")
    assert of_plan(place(seen, asked), "refine") == plain


def test_whatever_is_offered_a_decision_is_made_and_explains_itself() -> None:
    rng = random.Random(4)
    for number in range(200):
        parts = tuple(part for part in ("near-hit", "split", "latents") if rng.random() < 0.7)
        seen = offering(*parts, edge={"remaining_s": rng.choice([0.0, 40.0])}, worker={"ready": rng.random() < 0.8})
        asked = near(
            job_id=f"vid_{number:026d}",
            intent=rng.choice(["iterate", "render"]),
            near_similarity=rng.choice([0.0, 0.5, 1.0]),
            deadline_s=rng.choice([None, 1.0, 30.0]),
            allow_reduced=rng.random() < 0.5,
            **rng.choice([SMALL, {}]),
        )
        decision = decide(seen, asked, now_ns=NOW_NS, rng=rng)
        assert decision.reasons
        assert decision.plan == "refuse" or decision.chosen() is not None
        record(seen, asked, decision, now_ns=NOW_NS)
