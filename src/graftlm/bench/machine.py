"""What every benchmark writes beside its numbers, and how."""

import ctypes
import gc
import json
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from graftlm import versions


def machine() -> dict[str, Any]:
    """Processor, cores, threads and versions."""
    return versions.machine() | {
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def added_memory(work: Callable[[], object]) -> float:
    """MB by which the peak resident size during `work` exceeds the size before it; Linux only."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Resets the peak.
    before = _resident("VmRSS")
    work()
    return _resident("VmHWM") - before


def _resident(field: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)[1]) / 1024  # type: ignore[index]


def write(result: dict[str, Any], out: Path | None) -> None:
    """Print a result, and write it to `out` if there is one."""
    text = json.dumps(result, indent=2)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
