"""Files that are either whole or absent: written to a temporary name beside the target, then renamed."""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graftlm.errors import GraftError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cannot_write(path: Path, error: OSError) -> GraftError:
    """The error to raise for a file or folder, with what to do about it."""
    advice = "choose a folder that you may write to"
    if error.errno in NO_ROOM:
        advice = "free some space there, or choose another folder"
    return GraftError(f"Cannot write {path} ({error.strerror or error}); {advice}.")


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary path to write; it becomes `path` when the block ends well, else nothing is left.

    Raises: GraftError when the place cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise cannot_write(path, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder to fill; it becomes `path` when the block ends well, else nothing is left.

    With `replace`, a folder that is there already stays until then.
    Raises: GraftError when `path` exists with something in it and is not to be replaced, or cannot be written.
    """
    path = Path(path)
    if replace:
        _check_writable(path)
    else:
        check_new_folder(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise cannot_write(path, error) from error
    old = temporary.with_name(temporary.name + ".old")
    try:
        yield temporary
        # safetensors makes files that only their owner may read.
        for file in temporary.rglob("*"):
            file.chmod((0o777 if file.is_dir() else 0o666) & ~_umask())
        temporary.chmod(0o777 & ~_umask())
        if path.exists() and not replace:
            path.rmdir()
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(old, ignore_errors=True)


def flush(folder: Path) -> None:
    """Wait until the files of a folder are on the disk. Raises: OSError when there is no room for them."""
    for path in (*folder.iterdir(), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_new_folder(path: str | Path) -> None:
    """Refuse, before any work is done, an output folder that exists with something in it or cannot be made."""
    path = Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise GraftError(f"{path} already exists and is not empty; choose a new folder or remove it first.")
    _check_writable(path)


def check_new_file(path: str | Path) -> None:
    """Refuse, before any work is done, a result file that is a folder or cannot be made; an old file is replaced."""
    if Path(path).is_dir():
        raise GraftError(f"Cannot write {path} (it is a folder); give the name of a file.")
    _check_writable(Path(path))


def _check_writable(path: Path) -> None:
    parent = next(p for p in path.absolute().parents if p.exists())
    if not parent.is_dir():
        raise GraftError(f"Cannot write {path} ({parent} is not a folder); choose another place.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise GraftError(f"Cannot write {path} (no permission in {parent}); choose a place that you may write to.")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON with lists of numbers on one line, whole or not at all."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise GraftError(f"{path} would hold a number that is not finite; check the weights and the data.") from error
    # No line of JSON ends inside a text, so a bracket before a line's end is a list's.
    text = re.sub(r"\[\n([-+.\w\s,]*)\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
