"""Which version an edge has a request made by, and what it does where it or the scheduler lacks a card."""

from pathlib import Path

import pytest

from adaptivegen.bus.memory import MemoryBus
from adaptivegen.desired import DesiredModels
from adaptivegen.errors import ModelNotFound, NodeUnavailable
from adaptivegen.heartbeat import POLICY_BUCKET
from adaptivegen.models.card import ModelCard
from adaptivegen.models.lines import KEY, Line, Lines
from adaptivegen.models.registry import ModelLibrary, load_card
from adaptivegen.request import content_key
from edge_node.draft.models import DraftModels
from edge_node.versions import Versions
from tests.cards import draft_card
from tests.draft_models import draft_models
from tests.jobs import draft_manifest, make_request
from tests.unit.edge.bench import Edge, HeldModel, edge

LINE, GOOD = "pocket-cloud", "pocket-cloud-mixed"
CANARY = Line(stable=LINE, candidate=GOOD, phase="canary", percent=50.0, rollout=3)


class Desired:
    """What is in force, as told."""

    line = CANARY

    def of(self, name: str) -> Line:
        return self.line


async def in_force(bench: Edge, served: Line, number: int = 3, *, line: str = LINE) -> None:
    bucket = await bench.bus.kv(POLICY_BUCKET)
    await bucket.put(KEY, Lines(lines={line: served}, number=number).model_dump_json().encode())
    await bench.desired.read()


async def test_a_session_has_one_version_and_tenants_of_one_name_for_it_are_divided() -> None:
    bench = Edge()
    await in_force(bench, CANARY)
    versions = Versions(bench.desired, ModelLibrary())
    by_tenant = set()
    for tenant in "abcdefgh":
        asked = [make_request(model=LINE, session="main", seed=seed) for seed in range(5)]
        (served,) = {versions.of(request, tenant).name for request in asked}
        by_tenant.add(served)
    assert by_tenant == {LINE, GOOD}


async def test_without_a_session_a_repeat_has_the_version_of_the_first() -> None:
    bench = Edge()
    await in_force(bench, CANARY)
    versions = Versions(bench.desired, ModelLibrary())
    asked = [make_request(model=LINE, seed=seed) for seed in range(40)]
    first = [versions.of(request, "t").name for request in asked]
    assert first == [versions.of(request, "t").name for request in asked] and set(first) == {LINE, GOOD}


@pytest.mark.parametrize("card", [None, b"\xff", b'{"name": "pocket-new", "newer": true}'])
async def test_a_version_whose_card_is_missing_or_not_readable_here_refuses_nobody(
    tmp_path: Path, card: bytes | None
) -> None:
    if card is not None:
        (tmp_path / "pocket-new").mkdir()
        (tmp_path / "pocket-new" / "card.json").write_bytes(card)
    bench = Edge()
    await in_force(bench, Line(stable="pocket-new", previous=LINE))
    versions = Versions(bench.desired, ModelLibrary(tmp_path))
    assert versions.stable(LINE).name == LINE
    assert versions.of(make_request(model=LINE), "t").name == LINE
    with pytest.raises(ModelNotFound):
        versions.stable("no-such-model")


async def test_a_version_that_the_scheduler_does_not_know_is_placed_by_the_edge_alone() -> None:
    async with edge() as bench:
        await in_force(bench, Line(stable=GOOD, previous=LINE))
        bench.placer.error = ModelNotFound("no model is known here", param="cloud_model")
        record = await bench.create()
        assert (record.model, record.cloud_model) == (LINE, GOOD)
        assert (await bench.jobs.spec("t", record.id)).decision.decided_by == "edge-1"
        assert (bench.placer.queries[0].line, bench.placer.queries[0].cloud_model) == (LINE, GOOD)


def test_a_job_is_upgraded_by_its_version_as_long_as_that_serves() -> None:
    desired = Desired()
    versions = Versions(desired, ModelLibrary())  # type: ignore[arg-type]
    assert versions.still(LINE, GOOD).name == GOOD
    desired.line = Line(stable="pocket-cloud-pruned")
    assert versions.still(LINE, GOOD).name == "pocket-cloud-pruned"


async def test_an_older_copy_that_comes_late_undoes_nothing() -> None:
    bench = Edge()
    await in_force(bench, Line(stable=LINE), number=5)
    await in_force(bench, CANARY, number=4)
    assert bench.desired.of(LINE).candidate is None
    fresh = DesiredModels(bench.bus, bench.reach_clock)
    await fresh.read()
    assert fresh.of(LINE) == CANARY  # it has nothing newer to go by


async def test_what_was_read_last_stands_after_a_restart_until_the_broker_says_otherwise(tmp_path: Path) -> None:
    bench, kept = Edge(), tmp_path / "spool" / "models"
    first = DesiredModels(bench.bus, bench.reach_clock, kept)
    assert first.of(LINE) == Line(stable=LINE)
    await in_force(bench, CANARY, number=5)
    await first.read()
    away = DesiredModels(MemoryBus(bench.clock), bench.reach_clock, kept)
    await away.read()
    assert away.of(LINE) == CANARY
    await in_force(bench, Line(stable=GOOD), number=1)  # of a broker and a store that were begun anew
    again = DesiredModels(bench.bus, bench.reach_clock, kept)
    await again.read()
    assert again.of(LINE).stable == GOOD
    for damaged in (b"", b"{", b'{"lines": {"pocket-cloud": {"stable": "../x"}}}'):
        kept.write_bytes(damaged)
        assert DesiredModels(bench.bus, bench.reach_clock, kept).of(LINE) == Line(stable=LINE)
    nowhere = DesiredModels(bench.bus, bench.reach_clock, kept / "under-a-file")
    await nowhere.read()
    assert nowhere.of(LINE).stable == GOOD


async def test_a_job_whose_model_is_not_installed_any_more_goes_on_by_the_edges_own_decision() -> None:
    async with edge() as bench:
        record = await bench.create()
        spec = await bench.jobs.spec("t", record.id)
        gone = spec.model_copy(update={"request": spec.request.model_copy(update={"model": "pocket-gone"})})
        assert await bench.videos.placing.again(spec, True) is not None
        assert await bench.videos.placing.again(gone, True) is None


DRAFTS, NEW_DRAFT = "pocket-draft", draft_card(name="pocket-draft-2", digest="f" * 64)
DRAFT_CANARY = Line(stable=DRAFTS, candidate=NEW_DRAFT.name, phase="canary", percent=50.0, rollout=3)


def drafts_of(bench: Edge, *more: tuple[ModelCard, HeldModel]) -> DraftModels:
    known = tuple(card for card, _ in more) or (NEW_DRAFT,)
    return draft_models(load_card(DRAFTS), bench.model, *more, clock=bench.clock, desired=bench.desired, known=known)


async def test_drafts_of_a_session_are_made_by_one_version_where_it_is_loaded() -> None:
    bench = Edge()
    await in_force(bench, DRAFT_CANARY, line=DRAFTS)
    drafts = drafts_of(bench, (NEW_DRAFT, HeldModel()))
    chosen = {}
    for number in range(20):
        asked = [make_request(model=LINE, session=f"s{number}", seed=seed) for seed in range(3)]
        (chosen[number],) = {drafts.choose(request, "t").card.name for request in asked}
    assert set(chosen.values()) == {DRAFTS, NEW_DRAFT.name}
    assert {drafts.choose(make_request(session=f"s{number}"), "t").note for number in range(20)} == {""}
    assert drafts.digests == (load_card(DRAFTS).digest, NEW_DRAFT.digest)
    without = drafts_of(bench)
    for number, version in chosen.items():
        drafter = without.choose(make_request(session=f"s{number}"), "t")
        assert drafter.card.name == DRAFTS and (NEW_DRAFT.name in drafter.note) is (version != DRAFTS)


async def test_a_request_is_placed_and_kept_for_repeats_by_the_version_that_drafts_for_it() -> None:
    async with edge() as bench:
        await in_force(bench, DRAFT_CANARY.model_copy(update={"percent": 100.0}), line=DRAFTS)
        plain = await bench.jobs.spec("t", (await bench.create(key=None)).id)
        assert plain.notes == ("pocket-draft-2 was not loaded at the edge, so pocket-draft was to make the draft",)
        assert (plain.draft_model, bench.placer.queries[-1].draft_line) == (DRAFTS, DRAFTS)
        bench.drafts.kept.adopt(NEW_DRAFT, HeldModel())  # type: ignore[arg-type]
        tried = await bench.jobs.spec("t", (await bench.create(key=None)).id)
        query = bench.placer.queries[-1]
        assert (query.draft_model, query.draft_digest, query.draft_line) == ("pocket-draft-2", "f" * 64, DRAFTS)
        assert (tried.draft_model, tried.draft_steps, tried.notes) == ("pocket-draft-2", 8, ())
        assert tried.content_key != plain.content_key  # another draft, another final
        assert tried.content_key == content_key(
            tried.request, cloud_digest=load_card(LINE).digest, draft_digest=NEW_DRAFT.digest
        )


async def test_an_edge_that_decides_alone_drafts_with_the_version_it_has_while_the_other_is_loaded_again() -> None:
    async with edge() as bench:
        await in_force(bench, DRAFT_CANARY.model_copy(update={"percent": 100.0}), line=DRAFTS)
        bench.placer.error = NodeUnavailable("no scheduler")
        bench.drafts.kept.adopt(NEW_DRAFT, HeldModel())  # type: ignore[arg-type]
        bench.model.ready = False
        tried = (await bench.jobs.spec("t", (await bench.create(key=None)).id)).decision.candidates
        assert "draft" in {candidate.plan for candidate in tried if candidate.feasible}
        trial = DRAFT_CANARY.model_copy(update={"phase": "trial", "trial_node": "edge-1"})
        await in_force(bench, trial, number=4, line=DRAFTS)
        plain = (await bench.jobs.spec("t", (await bench.create(key=None)).id)).decision.candidates
        assert {candidate.plan for candidate in plain if candidate.feasible} == {"cloud"}


async def test_an_upgrade_is_of_the_draft_that_was_made() -> None:
    async with edge() as bench:
        await in_force(bench, DRAFT_CANARY.model_copy(update={"percent": 100.0}), line=DRAFTS)
        bench.drafts.kept.adopt(NEW_DRAFT, HeldModel())  # type: ignore[arg-type]
        bench.placer.changes = {"plan": "draft", "refine_t0": None, "final_steps": 0}
        record = await bench.create(key=None)
        spec = await bench.jobs.spec("t", record.id)
        made = draft_manifest().model_copy(update={"made_with": DRAFTS})  # the other had failed at it
        await bench.jobs.store_draft("t", record.id, made)
        bench.placer.changes = {}
        await bench.videos.upgrade("t", record.id)
        after = await bench.jobs.spec("t", record.id)
        assert (spec.draft_model, after.draft_model) == ("pocket-draft-2", DRAFTS)
        assert after.content_key == content_key(
            spec.request, cloud_digest=load_card(LINE).digest, draft_digest=load_card(DRAFTS).digest
        )
