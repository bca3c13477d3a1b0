"""What operators may change while schedulers run: what the QoE function weighs, and what cloud seconds cost. Pure.

A policy is known by flat names, the same as those of the scheduler's settings, and has the same bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from adaptivegen.errors import InvalidRequest, SettingsInvalid
from scheduler.decide.qoe import Costs, QoeSettings


@dataclass(frozen=True, slots=True)
class Policy:
    """By what plans are weighed."""

    qoe: QoeSettings = field(default_factory=QoeSettings)
    costs: Costs = field(default_factory=Costs)

    def values(self) -> dict[str, float]:
        """All of it, by name."""
        return {**asdict(self.qoe), **asdict(self.costs)}

    def but(self, changes: Mapping[str, float]) -> Policy:
        """The same with these values; raises InvalidRequest naming what is unknown or out of range."""
        values = self.values()
        for name, value in changes.items():
            if name not in values:
                raise InvalidRequest.field("policy", name[:80], ", ".join(values))
            values[name] = value
        costs = {name: values.pop(name) for name in asdict(self.costs)}
        try:
            return Policy(QoeSettings(**values), Costs(**costs))
        except SettingsInvalid as exc:
            raise InvalidRequest(exc.message, param=exc.param) from exc
