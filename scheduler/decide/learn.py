"""What is learned of nodes: how much slower each is than its card says.

Work is known beforehand from the model card, so only a factor is learned for every node and model: the logarithm of
observed over predicted time, by a Kalman filter whose state drifts (after llm-d's predictor; scalar). How far whole
predictions may be off is learned in `spreads`.
Pure: times are told.
"""

from __future__ import annotations

import math
import statistics
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from adaptivegen.errors import SettingsInvalid

LEAST_S = 1e-4  # observed or predicted times below are too short to be compared
SURPRISE = 3.0  # deviations beyond which an observation is taken for an accident
WARNED_S = 10.0  # for which one far slower than expected counts, before there is another
MOST_FACTOR = 20.0
FURTHEST = math.log(MOST_FACTOR)  # a node's factor lies between a twentieth and twenty
MAX_NODES, MAX_MODELS = 4096, 16  # that are remembered, and models of each


@dataclass(frozen=True, slots=True)
class LearnSettings:
    """Variances are of the logarithm of a ratio of times.

    noise: of one observation; drift_per_s: what a node's factor may change in a second; unknown: of a new node about
    its class; coverage: share of outcomes that the upper prediction should cover; patience: how fast its
    level adapts.
    """

    noise: float = 0.01
    drift_per_s: float = 1e-5
    unknown: float = 0.25
    coverage: float = 0.95
    patience: float = 0.01

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not (math.isfinite(value) and value > 0.0):
                raise SettingsInvalid(f"learning {item.name} is {value}; allowed: above 0", param=item.name)
        if not 0.5 < self.coverage < 1.0:
            raise SettingsInvalid(f"learning coverage is {self.coverage}; allowed: 0.5 to 1", param="coverage")


@dataclass(slots=True)
class Speed:
    """One node's factor for one model: mean and variance of its logarithm, as of `at_s`, after `seen` observations.

    warned: the logarithm of one that was far above what was expected, as of `warned_s`, until there is another: it is
    taken for an accident, but not tried again at once where there is a choice; else None.
    """

    mean: float
    variance: float
    at_s: float
    seen: int = 0
    surprises: int = 0  # in a row, of one sign
    warned: float | None = None
    warned_s: float = 0.0

    @property
    def factor(self) -> float:
        """By how much the card's times are to be multiplied."""
        return math.exp(self.mean)

    def observe(self, log_ratio: float, *, now_s: float, settings: LearnSettings) -> None:
        """Take one observation: ln(observed / predicted by the card).

        One far outside of what was expected moves the factor no further than the edge of it; a second one to the same
        side says that the node has changed, and is believed.
        """
        settled = self.variance + settings.drift_per_s * max(0.0, now_s - self.at_s)
        off, self.warned = log_ratio - self.mean, None
        bound = SURPRISE * math.sqrt(settled + settings.noise)
        if abs(off) <= bound:
            self.surprises = 0
        elif self.surprises * off > 0:
            settled, self.surprises = settings.unknown, 0
        else:
            self.surprises = 1 if off > 0 else -1
            if off > 0:
                self.warn(log_ratio, now_s=now_s)
            off = math.copysign(bound, off)
        gain = settled / (settled + settings.noise)
        self.mean = clamped(self.mean + gain * off)
        self.variance = settled * (1.0 - gain)
        self.at_s, self.seen = now_s, self.seen + 1

    def warn(self, log_ratio: float, *, now_s: float) -> None:
        """Something took so long, by the logarithm of its ratio."""
        self.warned, self.warned_s = clamped(log_ratio), now_s


class Speeds:
    """The factors of all nodes, by node and model; a new node begins where the middle one of its class is."""

    def __init__(self, settings: LearnSettings | None = None) -> None:
        self._settings = settings or LearnSettings()
        self._nodes: OrderedDict[str, dict[str, Speed]] = OrderedDict()  # the one heard of last at the end
        self._classes: dict[tuple[str, str], dict[str, float]] = {}  # kind and model -> node -> its mean
        self._middles: dict[tuple[str, str], float] = {}  # of these, as far as they are known
        self._told: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()  # by asker and node: log, when

    def __repr__(self) -> str:
        return f"Speeds(nodes={len(self._nodes)}, classes={sorted(self._classes)})"

    def observe(
        self, node_id: str, kind: str, model: str, *, observed_s: float, predicted_s: float, now_s: float
    ) -> float | None:
        """Learn from one finished piece of work; returns ln(observed / expected of this node), or None if unusable."""
        if not (_usable(observed_s) and _usable(predicted_s)):
            return None
        log_ratio = clamped(math.log(observed_s / predicted_s))
        expected = self._mean(node_id, kind, model)
        models = self._nodes.setdefault(node_id, {})
        self._nodes.move_to_end(node_id)
        if model not in models and len(models) < MAX_MODELS:
            models[model] = Speed(expected, self._settings.unknown, now_s)
        if model in models:
            models[model].observe(log_ratio, now_s=now_s, settings=self._settings)
            self._classes.setdefault((kind, model), {})[node_id] = models[model].mean
            self._middles.pop((kind, model), None)
        while len(self._nodes) > MAX_NODES:
            self.forget(next(iter(self._nodes)))
        return log_ratio - expected

    def factor(self, node_id: str, kind: str, model: str) -> float:
        """By how much the card's times are to be multiplied on this node."""
        return math.exp(self._mean(node_id, kind, model))

    def factors(self, node_ids: Iterable[str], kind: str, model: str) -> list[float]:
        """The same of several, in their order."""
        exp, mean = math.exp, self._mean
        return [exp(mean(node_id, kind, model)) for node_id in node_ids]

    def warned(self, node_id: str, model: str, *, now_s: float, asker: str = "") -> float:
        """The factor by one observation of the last WARNED_S that nothing has confirmed yet, of the node itself or of
        the edge that asks; 0 where there is none."""
        models = self._nodes.get(node_id)
        speed = models.get(model) if models is not None else None
        factor = 0.0
        if speed is not None and speed.warned is not None and now_s - speed.warned_s <= WARNED_S:
            factor = math.exp(speed.warned)
        if not self._told:
            return factor
        told, at_s = self._told.get((asker, node_id), (0.0, -math.inf))
        return max(factor, math.exp(told)) if now_s - at_s <= WARNED_S else factor

    def warn(self, asker: str, node_id: str, ratio: float, *, now_s: float) -> None:
        """To this asker a node was so many times slower than its card, or slower still: it was not waited for. That may
        be the way between the two, so that it counts for nobody else."""
        if not ratio > 1.0:
            return
        before, at_s = self._told.pop((asker, node_id), (0.0, -math.inf))
        standing = before if now_s - at_s <= WARNED_S else 0.0
        self._told[asker, node_id] = clamped(max(standing, math.log(ratio))), now_s
        while len(self._told) > MAX_NODES:
            self._told.popitem(last=False)

    def _mean(self, node_id: str, kind: str, model: str) -> float:
        models = self._nodes.get(node_id)
        speed = models.get(model) if models is not None else None
        if speed is not None:
            return speed.mean
        middle = self._middles.get((kind, model))
        if middle is None:
            known = self._classes.get((kind, model))
            middle = self._middles[kind, model] = statistics.median(known.values()) if known else 0.0
        return middle

    def forget(self, node_id: str) -> None:
        """The node is gone for good."""
        for model in self._nodes.pop(node_id, {}):
            for key in [key for key in self._classes if key[1] == model]:
                self._classes[key].pop(node_id, None)
                self._middles.pop(key, None)

    def known(self) -> Iterator[tuple[str, str, Speed]]:
        """Node, model and what is known, for operators."""
        for node_id, models in self._nodes.items():
            for model, speed in models.items():
                yield node_id, model, speed


def clamped(log_ratio: float) -> float:
    """A logarithm of a ratio of times within what is believed: a twentieth to twenty times."""
    return min(FURTHEST, max(-FURTHEST, log_ratio))


def _usable(seconds: float) -> bool:
    return math.isfinite(seconds) and seconds >= LEAST_S
