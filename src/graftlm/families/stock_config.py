"""transformers' own reading of a config: old names renamed, defaults filled in."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from graftlm.errors import CheckpointError, ConversionError
from graftlm.model.stack_config import MOST_LAYERS

Values = Mapping[str, Any]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises: CheckpointError when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read; give the folder of a model with its {path.name}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); fetch it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object; fetch it again.")
    return value


def stock_config(raw: Values) -> PreTrainedConfig:
    """The config object of transformers. Raises: ConversionError for what transformers refuses."""
    for name, value in _numbers(raw):
        if "layer" in name and value > MOST_LAYERS:
            # transformers would make lists of that length.
            raise ConversionError(f"The config asks for {name}={value}; no model has so many layers.")
    try:
        # transformers fills in defaults inside of what it is given.
        return CONFIG_MAPPING[raw["model_type"]].from_dict(copy.deepcopy(dict(raw)))
    except Exception as error:
        # transformers validates with several libraries' exception types.
        raise ConversionError(f"transformers refuses this config: {' '.join(str(error).split())}.") from error


def complete(raw: Values) -> Values:
    """The config's fields after transformers filled in defaults and renamed old ones."""
    return _fields(stock_config(raw), raw)


def spread(values: Values, nested: Iterable[str]) -> dict[str, Any]:
    """Fields of nested configs under dotted names: {"encoder": {"size": 2}} -> {"encoder.size": 2}.

    `nested` are their names, outer ones first.
    """
    flat = dict(values)
    for name in nested:
        inner = flat.pop(name, None)
        if isinstance(inner, PreTrainedConfig):
            inner = _fields(inner, inner.to_dict())
        if isinstance(inner, Mapping):
            flat.update({f"{name}.{key}": value for key, value in inner.items()})
    return flat


def gathered(flat: Values) -> dict[str, Any]:
    """Inverse of `spread`."""
    values: dict[str, Any] = {}
    for name, value in flat.items():
        *outer, last = name.split(".")
        place = values
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = value
    return values


def _fields(config: PreTrainedConfig, raw: Values) -> dict[str, Any]:
    names = raw.keys() | config.to_dict().keys()
    return {name: getattr(config, name) for name in dir(config) if name in names}


def _numbers(values: Values) -> Iterator[tuple[str, int]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int):
            yield name, value
