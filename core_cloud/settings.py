"""Settings of a cloud worker, from `ADAPTIVEGEN_WORKER_*`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from adaptivegen.settings import ModelsMixin, SchedulersMixin, ServiceSettings


class WorkerSettings(ServiceSettings, SchedulersMixin, ModelsMixin):
    """A worker serves one model from one pool, by whichever of its versions is in force."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="ADAPTIVEGEN_WORKER_")

    grpc_port: int = Field(0, ge=0, le=65535, description="Port of health and reflection; 0 takes a free one.")
    pool: str = Field("default", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Queue to pull from.")
    model: str = Field("pocket-cloud", description="Model to serve: what clients ask for.")
    backend: Literal["auto", "onnx", "torch"] = Field("auto", description="auto: torch where CUDA is, else onnx.")
    threads: int = Field(2, ge=1, le=256, description="CPU threads of the model.")
    ack_wait_s: float = Field(30.0, ge=2, le=600, description="Lease of a claimed job; renewed every third of it.")
    claim_ahead_s: float = Field(
        0.3, ge=0, le=60, description="So long before the model is free its next job is claimed; 0: only then."
    )
    draft_wait_s: float = Field(20.0, gt=0, le=600, description="How long a refine waits for its draft.")
    turn_budget_s: float = Field(
        0.25, gt=0, le=5, description="Time to ask whose turn it is; then the queue's order holds."
    )
    step_timeout_s: float = Field(120.0, gt=0, le=3600, description="A model silent for longer is killed.")
