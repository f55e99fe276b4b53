"""Files of settings that users write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from graftlm.errors import TaskError


def read_yaml(path: Path) -> dict[str, Any]:
    """Top-level fields of a file. Raises: TaskError when it is missing, no YAML, or holds something else."""
    try:
        values = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise TaskError(f"Cannot read {path} ({error.strerror}).") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise TaskError(f"{path}{place}: not valid YAML ({' '.join(str(reason).split())}); correct it.") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise TaskError(f"{path} must hold fields, each a line such as `name: value`.")
    return values
