"""Errors that a user can cause: one sentence each that says what to do; the command exits with code 2."""

import difflib
from collections.abc import Iterable


class GraftError(Exception):
    """Base of every error that a user can cause."""


class ConfigError(GraftError):
    """A model, recipe or command setting that cannot work."""


class ConversionError(GraftError):
    """A source model that cannot be read as one of the known families."""


class CheckpointError(GraftError):
    """Files of weights that are missing, damaged or do not belong together."""


class TaskError(GraftError):
    """A task file or its data that cannot be used."""


class RecordError(GraftError):
    """Records of runs and evaluations that cannot be read or compared."""


class TrainingError(GraftError):
    """A training run that cannot go on, or that does not belong to the checkpoint it should go on from."""


class ServingError(GraftError):
    """A server that cannot be set up, or an engine that failed."""


class RequestError(GraftError):
    """A request that cannot be answered, with what HTTP says about it: status, the field at fault, and a code."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


def meant(word: object, known: Iterable[str], otherwise: str = "") -> str:
    """What to ask about an unknown word: whether the closest of the known ones was meant, if one is close.

    >>> meant("stepps", ["steps", "seed"]), meant("x", ["steps", "seed"], "leave it out.")
    ("did you mean 'steps'?", 'leave it out.')
    """
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise
