"""With which version a worker makes a final, and what a version that is tried may cost: nobody's video."""

from adaptivegen.errors import GenerationFailed, InvalidRequest
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec
from core_cloud.versions import Version, choose, takes
from core_cloud.worker import UNWELL_FROM
from tests.cards import cloud_card
from tests.jobs import JOB_ID, make_spec
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
    assert (chosen.name, chosen.given_up) == (LINE, "new") and "without a final" in chosen.note
    assert choose(spec_for(LINE), LINE, (LINE, "new"), attempts=3) == Version(LINE)


def test_a_version_that_is_not_loaded_is_not_waited_for() -> None:
    chosen = choose(spec_for("new"), LINE, (LINE,), attempts=1)
    assert (chosen.name, chosen.given_up) == (LINE, "") and "not loaded" in chosen.note
    after = choose(spec_for(LINE), LINE, ("new",), attempts=1)  # promoted while the job waited
    assert after.name == "new"


def test_a_worker_takes_jobs_of_its_line_and_of_versions_it_has_loaded() -> None:
    assert takes(spec_for("gone"), LINE, (LINE,))
    assert takes(spec_for("new", asked="new"), LINE, (LINE, "new"))
    assert not takes(spec_for("new", asked="new"), LINE, (LINE,))
    assert choose(spec_for("new", asked="new"), LINE, (LINE, "new"), attempts=2) == Version("new")  # no other was asked


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
        assert (record.status, record.made_with, record.given_up, record.attempts) == ("completed", LINE, "new", 2)
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
        assert (record.made_with, record.given_up, record.notes) == ("new", "", ())
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
