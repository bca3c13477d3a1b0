"""Settings of a scheduler, from `ADAPTIVEGEN_SCHEDULER_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from adaptivegen.settings import LONGEST_S, ModelsMixin, ReadableFile, ServiceSettings, refused
from scheduler.decide.elastic import MOST_WORKERS, ElasticSettings
from scheduler.decide.placing import PlacingName
from scheduler.decide.policy import Policy
from scheduler.decide.qoe import DEAREST, LEAST_S, NEAREST
from scheduler.decide.quota import LONGEST_WAIT_S, AdmissionSettings
from scheduler.decide.select import SelectSettings

MIB = 1024 * 1024


class SchedulerSettings(ServiceSettings, ModelsMixin):
    """A scheduler keeps nothing of its own: its state comes back from heartbeats, the queues and the store."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="ADAPTIVEGEN_SCHEDULER_")

    grpc_port: int = Field(0, ge=0, le=65535, description="Port of the gRPC API; 0 takes a free one.")
    http_port: int = Field(
        0, ge=0, le=65535, description="Port of the admin API, its dashboard, /metrics and health; 0: a free one."
    )
    pool: str = Field("default", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Pool while no worker is known.")
    roles_file: ReadableFile | None = Field(
        None, description="JSON file of who may look, operate and administer, and who speaks for which nodes."
    )
    reconcile_interval_s: float = Field(10.0, gt=0, le=3600, description="Pause between two passes over open jobs.")
    reconcile_patience_s: float = Field(60.0, gt=0, le=3600, description="Silence after which a job is queued again.")
    decision_log: Path | None = Field(None, description="Folder for the decision log (Parquet); none without it.")
    decision_log_max_bytes: int = Field(256 * MIB, ge=MIB, le=2**50, description="The log's oldest files go beyond it.")
    draft_weight_iterate: float = Field(0.5, ge=0, le=1, description="What the draft counts for when iterating.")
    draft_weight_render: float = Field(0.15, ge=0, le=1, description="What the draft counts for when rendering.")
    draft_best_s: float = Field(0.5, ge=LEAST_S, le=LONGEST_S, description="A draft this early pleases fully.")
    draft_worst_s: float = Field(10.0, ge=2 * LEAST_S, le=LONGEST_S, description="A draft this late pleases no more.")
    final_best_s: float = Field(5.0, ge=LEAST_S, le=LONGEST_S, description="A final this early pleases fully.")
    final_worst_s: float = Field(120.0, ge=2 * LEAST_S, le=LONGEST_S, description="A final this late pleases no more.")
    cost_iterate: float = Field(
        1.0, ge=0, le=DEAREST, description="QoE points a cloud second must bring when iterating."
    )
    cost_render: float = Field(
        0.005, ge=0, le=DEAREST, description="QoE points a cloud second must bring when rendering."
    )

    placing: PlacingName = Field(
        "ours", description="Who decides; all but `ours` are there for comparisons (docs/adr/0026), not for use."
    )
    explore: float = Field(0.02, ge=0, le=0.02, description="Share of drafts that may try an edge not tried lately.")

    max_wait_s: float = Field(
        600.0, gt=0, le=LONGEST_WAIT_S, description="Nobody joins a line that is longer; flex half, default 4/5 of it."
    )
    drain_target_s: float = Field(30.0, gt=0, le=LONGEST_S, description="What waits in a pool should be done in this.")
    utilisation: float = Field(0.7, gt=0, le=1, description="Share of the time that a worker should be busy.")
    scale_in_after_s: float = Field(300.0, ge=0, le=LONGEST_S, description="Fewer workers only after so long a calm.")
    min_workers: int = Field(1, ge=0, le=MOST_WORKERS, description="Fewest workers of a pool that are advised.")
    max_workers: int = Field(64, ge=0, le=MOST_WORKERS, description="Most workers of a pool that are advised.")

    @model_validator(mode="after")
    def _worker_bounds(self) -> Self:
        if self.min_workers > self.max_workers:
            raise refused("min_workers", self.min_workers, f"at most max_workers, which is {self.max_workers}")
        return self

    @model_validator(mode="after")
    def _anchors(self) -> Self:
        for name in ("draft", "final"):
            best_s, worst_s = getattr(self, f"{name}_best_s"), getattr(self, f"{name}_worst_s")
            if best_s > worst_s * NEAREST:
                raise refused(f"{name}_best_s", best_s, f"best < worst: below {name}_worst_s, which is {worst_s:g}")
        return self

    def policy(self) -> Policy:
        """By what plans are weighed until operators say otherwise; raises InvalidRequest."""
        names = ("draft_weight_iterate", "draft_weight_render", "draft_best_s", "draft_worst_s", "final_best_s")
        values = {name: getattr(self, name) for name in (*names, "final_worst_s", "cost_iterate", "cost_render")}
        return Policy().but(values)

    def select(self) -> SelectSettings:
        """How places are drawn."""
        return SelectSettings(explore=self.explore)

    def admission(self) -> AdmissionSettings:
        """When requests are refused."""
        return AdmissionSettings(max_wait_s=self.max_wait_s)

    def elastic(self) -> ElasticSettings:
        """How many workers are advised."""
        return ElasticSettings(
            drain_target_s=self.drain_target_s,
            utilisation=self.utilisation,
            stabilise_s=self.scale_in_after_s,
            min_workers=self.min_workers,
            max_workers=self.max_workers,
        )
