"""Which version an edge has a request made by, and what it does where it or the scheduler lacks a card."""

from pathlib import Path

import pytest

from adaptivegen.desired import DesiredModels
from adaptivegen.errors import ModelNotFound
from adaptivegen.heartbeat import POLICY_BUCKET
from adaptivegen.models.lines import KEY, Line, Lines
from adaptivegen.models.registry import ModelLibrary
from edge_node.versions import Versions
from tests.jobs import make_request
from tests.unit.edge.bench import Edge, edge

LINE, GOOD = "pocket-cloud", "pocket-cloud-mixed"
CANARY = Line(stable=LINE, candidate=GOOD, phase="canary", percent=50.0, rollout=3)


class Desired:
    """What is in force, as told."""

    line = CANARY

    def of(self, name: str) -> Line:
        return self.line


async def in_force(bench: Edge, line: Line, number: int = 3) -> None:
    bucket = await bench.bus.kv(POLICY_BUCKET)
    await bucket.put(KEY, Lines(lines={LINE: line}, number=number).model_dump_json().encode())
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


async def test_a_job_whose_model_is_not_installed_any_more_goes_on_by_the_edges_own_decision() -> None:
    async with edge() as bench:
        record = await bench.create()
        spec = await bench.jobs.spec("t", record.id)
        gone = spec.model_copy(update={"request": spec.request.model_copy(update={"model": "pocket-gone"})})
        assert await bench.videos.placing.again(spec, True) is not None
        assert await bench.videos.placing.again(gone, True) is None
