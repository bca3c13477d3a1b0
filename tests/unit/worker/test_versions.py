"""With which version a worker makes a final, and what a version that is tried may cost: nobody's video."""

import pytest

from adaptivegen.errors import GenerationFailed, InvalidRequest
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec
from adaptivegen.models.card import Refine
from adaptivegen.placement import ToldSteps
from core_cloud.versions import Version, choose, note_of, refine_t0, settled, steps_of, takes
from core_cloud.worker import UNWELL_FROM
from tests.cards import cloud_card
from tests.jobs import JOB_ID, draft_manifest, make_spec
from tests.unit.worker.bench import Cloud, cloud

LINE = cloud_card().name
NEW = cloud_card(name="new")


def spec_for(version: str, *, asked: str = LINE, job_id: str = JOB_ID) -> JobSpec:
    spec = make_spec(job_id=job_id, plan="cloud")
    request = spec.request.model_copy(update={"model": asked})
    return spec.model_copy(update={"request": request, "cloud_model": version})


def test_a_job_is_made_with_the_version_it_was_placed_for() -> None:
    assert choose(spec_for(LINE), LINE, (LINE, "new"), attempts=1) == Version(LINE)
    assert choose(spec_for("new"), LINE, (LINE, "new"), attempts=1) == Version("new")


def test_after_an_attempt_without_a_final_the_version_that_serves_makes_it() -> None:
    chosen = choose(spec_for("new"), LINE, (LINE, "new"), attempts=2)
    assert chosen.name == LINE and "without a final" in chosen.note
    assert choose(spec_for(LINE), LINE, (LINE, "new"), attempts=3) == Version(LINE)


def test_a_version_that_is_not_loaded_is_not_waited_for() -> None:
    chosen = choose(spec_for("new"), LINE, (LINE,), attempts=1)
    assert chosen.name == LINE and "not loaded" in chosen.note
    after = choose(spec_for(LINE), LINE, ("new",), attempts=1)  # promoted while the job waited
    assert after.name == "new"


def test_a_worker_takes_jobs_of_its_line_and_of_versions_it_has_loaded() -> None:
    assert takes(spec_for("gone"), LINE, (LINE,))
    assert takes(spec_for("new", asked="new"), LINE, (LINE, "new"))
    assert not takes(spec_for("new", asked="new"), LINE, (LINE,))
    assert choose(spec_for("new", asked="new"), LINE, (LINE, "new"), attempts=2) == Version("new")  # no other was asked


def test_what_was_decided_for_one_version_does_not_hold_for_another() -> None:
    """Steps and where to start from a draft are a version's own; another's are of its card, within its limits."""
    few = cloud_card().limits.model_copy(update={"steps_min": 6, "steps_default": 10, "steps_max": 20})
    drafts = Refine(sources=("test-draft",), t0=0.7, steps=7)
    other, strange = cloud_card(limits=few, refine=drafts), cloud_card(limits=few, refine=None)
    spec = make_spec(plan="refine").model_copy(update={"cloud_model": "new", "draft_model": "test-draft"})
    spec = spec.model_copy(update={"decision": spec.decision.model_copy(update={"refine_t0": 0.4, "final_steps": 2})})
    own, by = Version("new"), Version(LINE, "because")
    assert (refine_t0(spec, other, own), refine_t0(spec, other, by), refine_t0(spec, strange, by)) == (0.4, 0.7, None)
    assert steps_of(spec, other, own, plan="refine", drafted=True) == 2
    assert steps_of(spec, other, by, plan="refine", drafted=True) == 7
    assert steps_of(spec, strange, by, plan="cloud", drafted=False) == 10
    assert steps_of(spec, strange, by, plan="reduced", drafted=False) == 6  # not half of them: it cannot do so few


@pytest.mark.parametrize(
    ("told", "plan", "drafted", "version", "hold"),
    [
        (8, "refine", True, "new", True),
        (8, "refine", False, "new", False),  # without its draft it is another final
        (8, "refine", True, LINE, False),
        (8, "cloud", True, "new", False),  # decided since, by another request
        (0, "refine", True, "new", False),
        (1, "refine", True, "new", False),  # fewer than the model can do with
        (1000, "refine", True, "new", False),
    ],
)
def test_steps_told_with_a_turn_hold_for_what_was_decided_alone(
    told: int, plan: str, drafted: bool, version: str, hold: bool
) -> None:
    few = cloud_card().limits.model_copy(update={"steps_min": 2, "steps_max": 20})
    spec = make_spec(plan="refine").model_copy(update={"cloud_model": "new"})
    card = cloud_card(limits=few, refine=Refine(sources=("test-draft",), t0=0.7, steps=7))
    assert settled(spec, card, Version(version), told=told, plan=plan, drafted=drafted) is hold


def test_a_final_with_other_steps_than_decided_says_why() -> None:
    spec = make_spec(plan="refine")
    assert note_of(spec, ToldSteps(4)) == ""
    assert note_of(spec, ToldSteps(2, others_wait=True)) == (
        "others waited for long when its turn came, so it has 2 steps in place of 4"
    )
    assert note_of(spec, ToldSteps(2)) == "4 steps would have been too late when its turn came, so it has 2"
    assert note_of(spec, ToldSteps(8)) == "there was time for 8 steps in place of 4 when its turn came"


async def until_ended(parts: Cloud, job_id: str) -> JobRecord:
    async def ended() -> bool:
        return (await parts.jobs.find("t", job_id)).ended

    await parts.until(ended)
    return await parts.jobs.find("t", job_id)


async def test_a_version_that_fails_costs_an_attempt_and_not_the_video() -> None:
    async with cloud(more=(NEW,)) as parts:
        tried = parts.more[0]
        tried.errors = [GenerationFailed("a kernel of the new version")]
        await parts.jobs.submit(spec_for("new"))
        record = await parts.until_ended()
        assert (record.status, record.made_with, record.failed_with, record.attempts) == ("completed", LINE, "new", 2)
        assert any("without a final" in note for note in record.notes)
        assert (len(tried.commands), len(parts.runner.commands)) == (1, 1)
        spec = spec_for("new")
        assert await parts.jobs.content("t", spec.content_key) is None  # the key stands for the other version's frames


async def test_whatever_a_version_says_that_is_tried_its_job_is_tried_again() -> None:
    async with cloud(more=(NEW,)) as parts:
        parts.more[0].errors = [InvalidRequest("I do not like this prompt")]
        await parts.jobs.submit(spec_for("new"))
        assert (await parts.until_ended()).made_with == LINE


async def test_a_version_that_is_tried_makes_its_jobs_and_they_are_found_by_repeats() -> None:
    async with cloud(more=(NEW,)) as parts:
        await parts.jobs.submit(spec_for("new"))
        record = await parts.until_ended()
        assert (record.made_with, record.failed_with, record.notes) == ("new", "", ())
        assert await parts.jobs.content("t", spec_for("new").content_key) is not None


async def test_a_version_that_fails_time_and_again_does_not_make_its_worker_rest() -> None:
    async with cloud(more=(NEW,)) as parts:
        ids = [f"{JOB_ID[:-1]}{number}" for number in range(UNWELL_FROM + 2)]
        parts.more[0].errors = [GenerationFailed("always")] * len(ids)
        for job_id in ids:
            await parts.jobs.submit(spec_for("new", job_id=job_id))
        for job_id in ids:
            assert (await until_ended(parts, job_id)).made_with == LINE
        assert parts.worker._failures == 0


@pytest.mark.parametrize(("drafted_with", "found"), [("test-draft", True), ("", True), ("test-draft-2", False)])
async def test_a_final_that_goes_on_from_another_versions_draft_is_not_found_by_repeats(
    drafted_with: str, found: bool
) -> None:
    async with cloud() as parts:
        parts.runner.go.clear()
        spec = make_spec(plan="refine")
        await parts.jobs.submit(spec)
        draft = draft_manifest().model_copy(update={"made_with": drafted_with, "notes": ("by another",)})
        await parts.blob.put(draft.media.key, b"draft")
        await parts.jobs.store_draft("t", JOB_ID, draft)
        parts.runner.go.set()
        record = await parts.until_ended()
        assert (record.status, record.plan, record.drafted_with) == ("completed", "refine", drafted_with)
        assert "by another" in record.notes
        assert (await parts.jobs.content("t", spec.content_key) is not None) is found
