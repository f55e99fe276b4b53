"""Worker processes that make the batches of a run ahead of its updates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graftlm.errors import GraftError, TrainingError

RAISED = "in DataLoader worker process"
"""In what torch says of an error that a worker raised; the worker's traceback follows, and ends in the message."""
GONE = "DataLoader worker"
"""In what torch says of a worker that is no more."""


@contextmanager
def worker_failures() -> Iterator[None]:
    """Inside the block, a worker's error is the one sentence that it would be without workers.

    Raises: TrainingError for a worker that ended by itself.
    """
    try:
        yield
    except GraftError as error:
        if RAISED not in str(error):
            raise
        raise type(error)(str(error).strip().rpartition("\n")[2].partition(": ")[2]) from error
    except RuntimeError as error:
        if GONE not in str(error) or RAISED in str(error):
            raise
        raise TrainingError(
            "A worker that makes batches was killed, most often for lack of memory; lower workers and go on with "
            "--resume."
        ) from error
