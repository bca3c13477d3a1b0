"""How many bytes tenants have stored, where that is limited: as counted last, and what jobs have made since. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping

from adaptivegen.placement import Outcome

MAX_HEARD = 8192  # outcomes that are known to be in the sums


class Stored:
    """by_tenant: bytes; counts: how often they were counted; revision: grows with every change.

    What is heard of between two counts makes a sum right at once. A count puts right what was never heard of (uploads,
    jobs that ended while nobody heard) and what was in a count already when it was heard of.
    """

    def __init__(self) -> None:
        self.by_tenant: dict[str, int] = {}
        self.counts = self.revision = 0
        self._heard: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._meanwhile: Counter[str] = Counter()  # made while a count is going on, which may have passed it by

    def __repr__(self) -> str:
        return f"Stored({len(self.by_tenant)} tenants, revision={self.revision})"

    def of(self, tenant: str) -> int:
        """Bytes of a tenant."""
        return self.by_tenant.get(tenant, 0)

    def made(self, tenant: str, outcome: Outcome) -> None:
        """A job has ended; what it has made counts once, however often its outcome is told. A hit was stored before."""
        made, key = round(outcome.final_bytes + outcome.draft_bytes), (outcome.job_id, outcome.decided_at_ns)
        if not made or not tenant or outcome.plan == "hit" or key in self._heard:
            return
        self._heard[key] = None
        while len(self._heard) > MAX_HEARD:
            self._heard.popitem(last=False)
        self.by_tenant[tenant] = self.of(tenant) + made
        self._meanwhile[tenant] += made
        self.revision += 1

    def freed(self, tenant: str, size_bytes: int) -> None:
        """So much was deleted."""
        self._meanwhile[tenant] -= size_bytes  # below 0 it is dropped: a count has what it has listed
        if size_bytes and self.of(tenant):
            self.by_tenant[tenant] = max(0, self.of(tenant) - size_bytes)
            self.revision += 1

    def begin_count(self) -> None:
        """A count begins."""
        self._meanwhile.clear()

    def counted(self, found: Mapping[str, int]) -> None:
        """A count has ended; what was made while it lasted may be missing in it, and is added."""
        self.by_tenant = dict(Counter(found) + self._meanwhile)
        self._meanwhile.clear()
        self.counts, self.revision = self.counts + 1, self.revision + 1
