"""What an edge counts, in Prometheus' form, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from edge_node.draft.desk import DraftDesk, DraftTimes


class EdgeMetrics:
    """Counters and histograms of one edge. Times in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        buckets = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 5.0, 10.0)
        self._first_look = Histogram(
            "adaptivegen_edge_first_look_seconds",
            "Acceptance to the first look",
            buckets=buckets,
            registry=self.registry,
        )
        self._draft = Histogram(
            "adaptivegen_edge_draft_seconds",
            "Acceptance to the stored draft",
            buckets=buckets,
            registry=self.registry,
        )
        self.accepted = Counter(
            "adaptivegen_edge_videos_accepted",
            "Requests accepted for work: new videos, their repeats, upgrades; not what was rendered before",
            registry=self.registry,
        )
        self._active = Gauge("adaptivegen_edge_drafts_active", "Drafts not finished", registry=self.registry)

    def observe(self, times: DraftTimes) -> None:
        """A draft was stored."""
        if times.first_look_s is not None:
            self._first_look.observe(times.first_look_s)
        if times.draft_s is not None:
            self._draft.observe(times.draft_s)

    def watch(self, desk: DraftDesk) -> None:
        """Read the number of drafts in the making when scraped."""
        self._active.set_function(lambda: desk.active)
