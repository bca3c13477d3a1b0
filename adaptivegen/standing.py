"""How tenants stand with their quotas, as schedulers tell edges, so that an edge that has to decide alone keeps to it.

Pure data. A telling is a copy of what one scheduler knew at one moment: limits exactly, use as far as it had counted.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

BUCKET = "standings"
KEY = "now"  # the newest telling, of whichever scheduler
MAX_TENANTS = 2048  # in one telling: those that use most
TELL_EVERY_S = 5.0  # where something has changed
KEPT_S = 600.0  # by the broker: what is older is not told to an edge that starts
Limit = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Used = Annotated[float, Field(ge=0, allow_inf_nan=False)]
TenantName = Annotated[str, Field(max_length=63)]


class Standing(BaseModel):
    """One tenant's limits, None where there is none, and what it uses.

    gpu_seconds_per_hour: of workers; used_gpu_s: of the last hour, with what its open jobs are predicted to need;
    concurrent_jobs, open_jobs: not ended yet; stored_bytes, stored: of its videos; priority: whether it may ask for
    that tier.
    """

    model_config = ConfigDict(frozen=True)

    gpu_seconds_per_hour: Limit | None = None
    concurrent_jobs: Limit | None = None
    stored_bytes: Limit | None = None
    priority: bool = False
    used_gpu_s: Used = 0.0
    open_jobs: Annotated[int, Field(ge=0)] = 0
    stored: Annotated[int, Field(ge=0)] = 0


class Standings(BaseModel):
    """All tenants at one moment: those that have own limits or use something; everybody: whoever else there is."""

    model_config = ConfigDict(frozen=True)

    at_ns: Annotated[int, Field(ge=0, lt=2**63)] = 0
    everybody: Standing = Standing(priority=True)
    tenants: Annotated[dict[TenantName, Standing], Field(max_length=MAX_TENANTS)] = {}

    def of(self, tenant: str) -> Standing:
        """What was told of a tenant."""
        return self.tenants.get(tenant, self.everybody)

    def encode(self) -> bytes:
        """JSON for the wire."""
        return self.model_dump_json(exclude_defaults=True).encode()


def too_many_open(tenant: str, count: int, *, allowed: float) -> str:
    """In words: why a tenant that has so many open jobs may have no other."""
    if allowed == 0.0:
        return f"tenant {tenant} may have no jobs (its quota of concurrent_jobs is 0)"
    return f"tenant {tenant} has {count} jobs that have not ended; allowed: {allowed:g}"
