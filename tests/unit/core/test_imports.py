"""What importing a module may bring with it."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnxruntime", "grpc", "nats", "aiohttp", "av")
PURE = (
    "adaptivegen.errors",
    "adaptivegen.ids",
    "adaptivegen.request",
    "adaptivegen.placement",
    "adaptivegen.nodes",
    "adaptivegen.jobs.spec",
    "adaptivegen.jobs.record",
    "adaptivegen.jobs.events",
    "adaptivegen.media.ranges",
    "adaptivegen.media.signing",
    "scheduler.decide.decide",
    "cdn_cache.eviction.lru",
    "edge_node.alone",
    "edge_node.quotas",
    "edge_node.spool.pace",
    "core_cloud.progress",
)


@pytest.mark.parametrize("module", ["adaptivegen", *PURE])
def test_light_modules_bring_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
