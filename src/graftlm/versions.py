"""The versions and the machine that the numbers of a run depend on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from graftlm import __version__


def versions(*more: str) -> dict[str, str]:
    """Versions of Python, graftlm and the libraries under it, and of `more` packages."""
    packages = {package: version(package) for package in ("torch", "transformers", *more)}
    return {"python": platform.python_version(), "graftlm": __version__} | packages


def machine() -> dict[str, Any]:
    """The processor's name and how many cores this machine has."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {"processor": names[0] if names else platform.processor() or platform.machine(), "cores": os.cpu_count()}
