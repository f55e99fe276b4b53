"""graftlm train: a run described in a file, with changes from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from graftlm.cli.common import changes
from graftlm.cli.tune import tune
from graftlm.errors import ConfigError, meant


def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file with the options of graftlm tune as fields.")],
    change: Annotated[
        list[str] | None, typer.Argument(help="field=value, to change or add a field.", metavar="FIELD=VALUE")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of the same run.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, show the plan, train nothing.")] = False,
) -> None:
    """Train what a recipe file says: `model`, `task` (one or a list), `out`, and any option of graftlm tune."""
    values = read_recipe(recipe, change or [])
    if dry_run:
        values["dry_run"] = True
    if resume:
        values["resume"] = True
    tune(**values)


def read_recipe(path: Path, texts: list[str]) -> dict[str, Any]:
    """Arguments of `tune` from a file and `field=value` texts.

    Names of files are relative to the recipe, or to the working folder where they are given as a change.
    Raises: ConfigError and TaskError in one sentence.
    """
    from graftlm.data.yaml_file import read_yaml

    values = {name.replace("-", "_"): value for name, value in read_yaml(path).items()}
    for name, value in values.items():
        if name in ("model", "task", "teacher"):
            values[name] = [_beside(path, v) for v in value] if isinstance(value, list) else _beside(path, value)
        elif name == "out" and isinstance(value, str):
            values[name] = path.parent / value
    values |= changes(texts)
    fields = {name: kind for name, kind in get_type_hints(tune).items() if name not in ("return", "resume", "dry_run")}
    for name in values:
        if name not in fields:
            hint = meant(name, fields, f"known are {', '.join(fields)}.")
            raise ConfigError(f"{path} has an unknown field {name!r}; {hint}")
    missing = [name for name in ("model", "task", "out") if values.get(name) in (None, [])]
    if missing:
        raise ConfigError(f"{path} lacks {' and '.join(missing)}; add a line `{missing[0]}: …`.")
    if not isinstance(values["task"], list):
        values["task"] = [values["task"]]
    return _typed(path, values, fields)


def _typed(path: Path, values: dict[str, Any], fields: Any) -> dict[str, Any]:
    """Values as `tune` wants them; numbers stay numbers, and anything else in their place is an error."""
    import pydantic

    checked = dict(values)
    for name, value in values.items():
        if isinstance(value, bool) and fields[name] is not bool:
            raise ConfigError(f"{path}: {name} is {value}, as YAML reads yes and no; give a number, or text in quotes.")
        try:
            kind = pydantic.TypeAdapter(fields[name])
            checked[name] = kind.validate_python(value)
        except pydantic.ValidationError as error:
            reason = error.errors()[0]["msg"].replace("Input", "it", 1)
            raise ConfigError(f"{path}: {name} is {value!r}; {reason}.") from error
    return checked


def _beside(path: Path, name: Any) -> Any:
    """A file or folder beside the recipe if there is one of that name; else a built-in or hub name as it is."""
    there = path.parent / str(name)
    return str(there) if there.exists() else name
