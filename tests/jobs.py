"""Specs, media and manifests for tests."""

from typing import Any

from adaptivegen.jobs.spec import DraftManifest, JobSpec, Media
from adaptivegen.placement import Candidate, Decision
from adaptivegen.request import GenerationRequest

JOB_ID = "vid_01hzzzzzzzzzzzzzzzzzzzzzz0"


def media(letter: str = "a") -> Media:
    sha256 = letter * 64
    return Media(
        key=f"out/t/{JOB_ID}/1/{sha256}.mp4", sha256=sha256, size_bytes=10, width=256, height=256, frames=24, fps=12
    )


def draft_manifest() -> DraftManifest:
    return DraftManifest(media=media("d"), steps=4, completed_at_ns=5_000_000_000)


def make_request(**changes: Any) -> GenerationRequest:
    values: dict[str, Any] = {
        "prompt": "a red circle moves left",
        "model": "test-cloud",
        "width": 256,
        "height": 256,
        "seconds": 2.0,
        "fps": 12,
        "frames": 24,
        "steps": None,
        "guidance": 2.0,
        "seed": 7,
        "intent": "render",
    }
    return GenerationRequest(**{**values, **changes})


def make_spec(*, job_id: str = JOB_ID, tenant: str = "t", plan: str = "refine", want_final: bool = True) -> JobSpec:
    decision = Decision(
        job_id=job_id,
        plan=plan,
        edge_id="edge-1",
        pool="default",
        final_steps=4,
        refine_t0=0.5,
        decided_by="scheduler-1",
        decided_at_ns=1,
        reasons=("because",),
        candidates=(Candidate(plan="refine", feasible=True, reason="ok", final_s=3.0),),
    )
    return JobSpec(
        id=job_id,
        tenant=tenant,
        created_at_ns=1_000_000_000,
        request=make_request(),
        content_key="c" * 64,
        draft_model="test-draft",
        cloud_model="test-cloud",
        draft_steps=4,
        decision=decision,
        edge_grpc_address="127.0.0.1:1",
        draft_token="dt_x",
        want_final=want_final,
    )
