"""The policy in force, and every change of it, who made it and why (`numbered`).

A change holds all that differs from the settings that schedulers were started with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from adaptivegen.blob.base import BlobStore
from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.errors import InvalidRequest
from scheduler.decide.policy import Policy
from scheduler.decide.view import View
from scheduler.numbered import MAX_TEXT_CHARS, Change, Numbered, check_reason
from scheduler.steady import SteadyTime

KEY = "weights"  # of the copy, in the policy bucket
PREFIX = "policy/"
MAX_VALUES = 64


class PolicyChange(Change):
    """One change. values: all that then differed from the settings, by name."""

    values: Annotated[dict[str, float], Field(max_length=MAX_VALUES, default_factory=dict)]


class Policies(Numbered[PolicyChange]):
    """Keeps a view's policy true, and changes it."""

    def __init__(self, view: View, bus: Bus, blob: BlobStore, *, clock: Clock, time: SteadyTime) -> None:
        self._view = view
        self._time = time
        self.configured = view.policy
        super().__init__(
            PolicyChange, "policy", prefix=PREFIX, key=KEY, bus=bus, blob=blob, clock=clock, follow=self._put_in_force
        )

    @property
    def in_force(self) -> Policy:
        """By what plans are weighed now."""
        return self._view.policy

    def _put_in_force(self, change: PolicyChange) -> None:
        self._view.policy = self.configured.but(change.values)

    async def change(self, values: Mapping[str, float], unset: Sequence[str], *, by: str, reason: str) -> PolicyChange:
        """Set values and go back to the configured ones for those `unset`.

        Raises InvalidRequest naming what is unknown or out of range, and what `append` raises.
        """
        for name, given in (("values", len(values)), ("unset", len(unset))):
            if given > MAX_VALUES:
                raise InvalidRequest.field(name, f"{given} names", f"at most {MAX_VALUES}")
        for name in unset:
            if name in values:
                raise InvalidRequest.field("unset", name[:80], "names that are not set in the same change")
        check_reason(reason)
        if not values and not unset:
            raise InvalidRequest("nothing to change; say values or unset", param="values")

        def make(before: PolicyChange | None, number: int) -> PolicyChange:
            after = self._changed(before, values, unset)
            at_ns = self._time.now_ns()
            return PolicyChange(number=number, values=after, by=by[:MAX_TEXT_CHARS], reason=reason, at_ns=at_ns)

        return await self.append(make)

    def _changed(
        self, before: PolicyChange | None, values: Mapping[str, float], unset: Sequence[str]
    ) -> dict[str, float]:
        """What differs from the settings after a change; raises InvalidRequest."""
        after, known = dict(before.values) if before else {}, self.configured.values()
        for name in unset:
            if after.pop(name, None) is None and name not in known:
                raise InvalidRequest.field("unset", name[:80], ", ".join(known))
        after.update(values)
        self.configured.but(after)
        return {name: value for name, value in after.items() if value != known[name]}
