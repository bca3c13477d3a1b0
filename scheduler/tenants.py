"""What operators are told of tenants: what holds for each, and what each uses."""

from __future__ import annotations

import math

from adaptivegen.rpc.admin_rows import QuotaChangeInfo, TenantInfo
from scheduler.decide.quota import EVERYBODY
from scheduler.decide.view import View
from scheduler.quotas import QuotaChange

MAX_TENANTS = 4096  # in one answer


def tenants(view: View, *, now_ns: int) -> list[TenantInfo]:
    """Everybody, and every tenant that has own values, open jobs, or has used something in the last hour; by name."""
    now_s = now_ns / 1e9
    used = dict(view.jobs.usage.tenants(now_s=now_s))
    names = {EVERYBODY, *view.quotas.values, *view.jobs.tenants(), *used}
    return [_info(view, name, used.get(name, 0.0)) for name in sorted(names)[:MAX_TENANTS]]


def _info(view: View, tenant: str, used_s: float) -> TenantInfo:
    quota = view.quotas.of(tenant)
    counted = view.quotas.limits_storage and tenant != EVERYBODY
    return TenantInfo(
        tenant=tenant,
        own=tuple(sorted(view.quotas.values.get(tenant, {}))),
        gpu_seconds_per_hour=_limit(quota.gpu_seconds_per_hour),
        concurrent_jobs=_limit(quota.concurrent_jobs),
        stored_bytes=_limit(quota.stored_bytes),
        weight=quota.weight,
        priority=bool(quota.priority),
        used_gpu_s=used_s,
        reserved_gpu_s=view.jobs.reserved_s(tenant),
        open_jobs=view.jobs.count(tenant),
        stored=view.stored.of(tenant) if counted else None,
    )


def _limit(value: float) -> float | None:
    return None if math.isinf(value) else value


def change_info(change: QuotaChange) -> QuotaChangeInfo:
    """A change, with the values of the tenant it was about."""
    return QuotaChangeInfo(
        number=change.number,
        tenant=change.tenant,
        values=dict(change.values.get(change.tenant, {})),
        by=change.by,
        reason=change.reason,
        at_ns=change.at_ns,
    )
