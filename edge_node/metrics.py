"""What an edge counts, in Prometheus' form, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from edge_node.draft.desk import DraftDesk, DraftTimes
from edge_node.sides import Partition
from edge_node.spool.drain import Drainer


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

        self.spooled = Counter("adaptivegen_edge_spooled", "Jobs accepted into the spool", registry=self.registry)
        self.spool_refused = Counter(
            "adaptivegen_edge_spool_refused", "Requests refused because the spool was full", registry=self.registry
        )
        self.drained = Counter("adaptivegen_edge_drained", "Jobs handed over from the spool", registry=self.registry)
        self._spool_jobs = Gauge("adaptivegen_edge_spool_jobs", "Jobs in the spool", registry=self.registry)
        self._spool_bytes = Gauge("adaptivegen_edge_spool_bytes", "Bytes in the spool", registry=self.registry)
        self._cut_off = Gauge("adaptivegen_edge_cut_off", "1 while cut off", registry=self.registry)

    def observe(self, times: DraftTimes) -> None:
        """A draft was stored."""
        if times.first_look_s is not None:
            self._first_look.observe(times.first_look_s)
        if times.draft_s is not None:
            self._draft.observe(times.draft_s)

    def watch_partition(self, partition: Partition, drainer: Drainer) -> None:
        """Count what goes into the spool and out of it; read what is in it, and whether this edge is cut off, when
        scraped."""
        partition.spool.on_job, partition.spool.on_refused = self.spooled.inc, self.spool_refused.inc
        drainer.on_drained = self.drained.inc
        self._spool_jobs.set_function(lambda: len(partition.spool))
        self._spool_bytes.set_function(lambda: partition.spool.used_bytes)
        self._cut_off.set_function(lambda: partition.reach.cut_off)

    def watch(self, desk: DraftDesk) -> None:
        """Read the number of drafts in the making when scraped."""
        self._active.set_function(lambda: desk.active)
