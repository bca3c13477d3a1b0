"""The quotas of tenants in force, and every change of them, who made it and why (`numbered`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from adaptivegen.blob.base import BlobStore
from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.errors import InvalidRequest
from scheduler.decide.quota import MAX_TENANTS, NAMES, Quotas, check_quota
from scheduler.numbered import MAX_TEXT_CHARS, Change, Numbered, check_reason
from scheduler.steady import SteadyTime

KEY = "quotas"  # of the copy, in the policy bucket
PREFIX = "quotas/"

Tenant = Annotated[str, Field(max_length=63)]
Values = Annotated[dict[str, float], Field(max_length=64)]  # more than there are: later versions may have more


class QuotaChange(Change):
    """One change. values: of all tenants, as they are after it; tenant: whose were changed."""

    tenant: Tenant = ""
    values: Annotated[dict[Tenant, Values], Field(max_length=MAX_TENANTS, default_factory=dict)]


class TenantQuotas(Numbered[QuotaChange]):
    """Keeps a view's quotas true, and changes them."""

    def __init__(self, quotas: Quotas, bus: Bus, blob: BlobStore, *, clock: Clock, time: SteadyTime) -> None:
        self._time = time
        self.in_force = quotas
        super().__init__(
            QuotaChange, "quota", prefix=PREFIX, key=KEY, bus=bus, blob=blob, clock=clock, follow=self._put_in_force
        )

    def _put_in_force(self, change: QuotaChange) -> None:
        self.in_force.set(change.values)

    async def change(
        self, tenant: str, values: Mapping[str, float], unset: Sequence[str], *, by: str, reason: str
    ) -> QuotaChange:
        """Set a tenant's values, and take those of `unset` away, so that everybody's hold for it.

        Raises InvalidRequest naming what is unknown or out of range, and what `append` raises.
        """
        check_quota(tenant, values)
        for name in unset:
            if name in values or name not in NAMES:
                raise InvalidRequest.field("unset", name[:80], f"{', '.join(NAMES)}, and not set in the same change")
        check_reason(reason)
        if not values and not unset:
            raise InvalidRequest("nothing to change; say values or unset", param="values")

        def make(before: QuotaChange | None, number: int) -> QuotaChange:
            after = dict(before.values) if before else {}
            kept = {name: value for name, value in after.pop(tenant, {}).items() if name not in unset} | dict(values)
            if kept:
                after[tenant] = kept
            Quotas().set(after)
            return QuotaChange(
                number=number,
                tenant=tenant,
                values=after,
                by=by[:MAX_TEXT_CHARS],
                reason=reason,
                at_ns=self._time.now_ns(),
            )

        return await self.append(make)
