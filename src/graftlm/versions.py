"""The versions that the numbers of a run depend on."""

import platform
from importlib.metadata import version

from graftlm import __version__


def versions(*more: str) -> dict[str, str]:
    """Versions of Python, graftlm and the libraries under it, and of `more` packages."""
    packages = {package: version(package) for package in ("torch", "transformers", *more)}
    return {"python": platform.python_version(), "graftlm": __version__} | packages
