"""A job whose upload is gone from the store."""

from adaptivegen.request import Reference
from tests.unit.worker.bench import cloud, spec_of


async def test_a_job_whose_upload_is_gone_fails_and_says_what_is_missing() -> None:
    spec = spec_of("cloud")
    reference = Reference(kind="video", sha256="e" * 64, key="inputs/t/gone/e")
    spec = spec.model_copy(update={"request": spec.request.model_copy(update={"reference": reference})})
    async with cloud() as parts:
        await parts.jobs.submit(spec)
        record = await parts.until_ended()
        assert record.status == "failed"
        assert record.error is not None and reference.key in record.error.message
