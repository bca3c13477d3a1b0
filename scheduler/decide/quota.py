"""What tenants may use: set by operators, by tenant or for all who have no own value. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from adaptivegen.errors import InvalidRequest, SettingsInvalid
from adaptivegen.ids import check_name

EVERYBODY = "*"  # the tenant whose values hold for all that have no own
MAX_TENANTS = 4096
UNLIMITED = math.inf
LONGEST_WAIT_S = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Quota:
    """A tenant's limits; infinity where there is none.

    gpu_seconds_per_hour: of workers; concurrent_jobs: not ended yet; stored_bytes: of its videos and what was uploaded
    for them; weight: its share of a busy pool, against 1 of others; priority: 1 where it may ask for that tier.
    """

    gpu_seconds_per_hour: float = UNLIMITED
    concurrent_jobs: float = UNLIMITED
    stored_bytes: float = UNLIMITED
    weight: float = 1.0
    priority: float = 0.0


NAMES = tuple(item.name for item in fields(Quota))
_BOUNDS: dict[str, tuple[float, float]] = {"weight": (0.01, 100.0), "priority": (0.0, 1.0)}
_MOST = 1e18
_WHOLE = frozenset(("concurrent_jobs", "stored_bytes", "priority"))


def check_quota(tenant: str, values: Mapping[str, float]) -> None:
    """Raise InvalidRequest for what cannot be a tenant or its values."""
    if tenant != EVERYBODY:
        check_name(tenant, field="tenant")
    for name, value in values.items():
        if name not in NAMES:
            raise InvalidRequest.field("quota", name[:80], ", ".join(NAMES))
        low, high = _BOUNDS.get(name, (0.0, _MOST))
        if not low <= value <= high:  # nor if it is no number
            raise InvalidRequest.field(name, value, f"{low:g} to {high:g}")
        if name in _WHOLE and value != round(value):
            raise InvalidRequest.field(name, value, "a whole number")


@dataclass(slots=True)
class Quotas:
    """Values by tenant; whatever neither a tenant nor everybody has been given is unlimited."""

    values: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    revision: int = 0
    _known: dict[str, Quota] = field(default_factory=dict)

    def set(self, values: Mapping[str, Mapping[str, float]]) -> None:
        """All of them anew; raises InvalidRequest."""
        if len(values) > MAX_TENANTS:
            raise InvalidRequest.field("quotas", f"{len(values)} tenants", f"at most {MAX_TENANTS}")
        for tenant, given in values.items():
            check_quota(tenant, given)
        self.values, self._known = values, {}
        self.revision += 1

    def of(self, tenant: str) -> Quota:
        """What holds for a tenant."""
        found = self._known.get(tenant)
        if found is None:
            found = Quota(**{**self.values.get(EVERYBODY, {}), **self.values.get(tenant, {})})
            if len(self._known) < MAX_TENANTS:
                self._known[tenant] = found
        return found

    @property
    def limits_storage(self) -> bool:
        """Whether anybody's stored bytes are limited, so that they have to be counted."""
        return any("stored_bytes" in given for given in self.values.values())


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """max_wait_s: predicted seconds in line beyond which nobody may join it."""

    max_wait_s: float = 600.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not 0.0 < value <= LONGEST_WAIT_S:
                limit = f"above 0, to {LONGEST_WAIT_S:g}"
                raise SettingsInvalid(f"{item.name} is {value}; allowed: {limit}", param=item.name)
