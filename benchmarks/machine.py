"""What a benchmark ran on, in one line, so that figures can be compared."""

import os
import platform
from pathlib import Path

import psutil


def hardware() -> str:
    """Processor, usable cores, memory, load before, and Python's version."""
    cpu_file = Path("/proc/cpuinfo")
    lines = cpu_file.read_text(encoding="utf-8").splitlines() if cpu_file.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count()
    memory_gib, load = psutil.virtual_memory().total / 1024**3, psutil.getloadavg()[0]
    where = f"{next(named, platform.machine())}, {cores} cores, {memory_gib:.0f} GiB"
    return f"{where}, load {load:.1f} before; Python {platform.python_version()}"
