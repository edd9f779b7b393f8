"""What the figures were measured on."""

import json
import os
import subprocess
from typing import Any

from mistral_ext.cli import info, measure


def describe() -> dict[str, Any]:
    """The processor with its flags, memory and its read bandwidth, versions, kernels' level."""
    cpu = _lscpu()
    return {
        "cpu": cpu.get("Model name", "unknown"),
        "cores": os.cpu_count(),
        "caches": {name: size for name, size in cpu.items() if name.endswith("cache")},
        "flags": cpu.get("Flags", ""),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "read_bandwidth": measure.read_bandwidth(),
        **info.environment(),
    }


def _lscpu() -> dict[str, str]:
    try:
        output = subprocess.run(["lscpu", "--json"], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(_fields(json.loads(output)["lscpu"]))


def _fields(entries: list[dict[str, Any]]) -> list[tuple[str, str]]:
    found = []
    for entry in entries:
        found.append((entry["field"].rstrip(":"), entry["data"]))
        found += _fields(entry.get("children", []))
    return found
