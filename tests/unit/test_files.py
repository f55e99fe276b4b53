"""Files and folders are whole or absent."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from graftlm.errors import GraftError
from graftlm.files import atomic_file, atomic_folder, check_new_file, check_new_folder, write_json


def test_whole_when_all_goes_well(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {"x": "é"})
    assert json.loads((tmp_path / "new" / "a.json").read_text(encoding="utf-8")) == {"x": "é"}
    with atomic_folder(tmp_path / "folder") as folder:
        (folder / "b").write_text("b")
    assert (tmp_path / "folder" / "b").read_text() == "b"


def test_numbers_share_a_line_and_texts_keep_theirs(tmp_path: Path) -> None:
    value = {"a": [1, -2.5, 1e-9, True, None], "b": [[1, 2], []], "c": ["x", "[\n 1,  2\n]"], "d": "[ 1 ]\n"}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert '"a": [1, -2.5, 1e-09, true, null],' in text
    assert text.count("\n") == 12


def half_a_file(path: Path, error: BaseException) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error


def half_a_folder(path: Path, error: BaseException) -> None:
    with atomic_folder(path) as temporary:
        (temporary / "half").write_text("half")
        raise error


@pytest.mark.parametrize("write", [half_a_file, half_a_folder])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x")])
def test_absent_when_interrupted(
    tmp_path: Path, write: Callable[[Path, BaseException], None], error: BaseException
) -> None:
    with pytest.raises(type(error)):
        write(tmp_path / "a", error)
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_survives_a_failed_write(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(ValueError, match="x"):
        half_a_file(tmp_path / "a", ValueError("x"))
    assert (tmp_path / "a").read_text() == "old"


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(GraftError, match="No space left"), atomic_file(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_folders_in_use_and_places_that_are_no_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GraftError, match="not empty"):
        check_new_folder(tmp_path)
    with pytest.raises(GraftError, match="not empty"):
        check_new_folder(tmp_path / "file")
    with pytest.raises(GraftError, match="it is a folder"):
        check_new_file(tmp_path)
    with pytest.raises(GraftError, match="is not a folder"):
        check_new_file(tmp_path / "file" / "x" / "y")
    check_new_folder(tmp_path / "fresh" / "deep")


def test_no_permission_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests may run as root, whom permissions do not stop.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(GraftError, match="no permission"):
        check_new_folder(tmp_path / "x")


def test_what_a_folder_holds_may_be_read_by_others(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "f") as folder:
        (folder / "secret").touch(0o600)
    assert (tmp_path / "f" / "secret").stat().st_mode == (tmp_path / "f").stat().st_mode & 0o666 | 0o100000


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GraftError, match="not finite"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_replaced_only_on_request_and_only_by_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(GraftError, match="already exists"), atomic_folder(path):
        raise AssertionError
    with pytest.raises(ValueError, match="x"), atomic_folder(path, replace=True):
        raise ValueError("x")
    assert (path / "old").read_text() == "old"
    with atomic_folder(path, replace=True) as folder:
        (folder / "new").write_text("new")
    assert [p.name for p in path.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_comes_back_when_the_new_one_cannot_take_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.mkdir()
    (path / "old").write_text("old")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == path and self.suffix != ".old":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(GraftError, match="Input/output error"), atomic_folder(path, replace=True):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (path / "old").read_text() == "old"


def test_a_full_disk_asks_for_space(tmp_path: Path) -> None:
    with pytest.raises(GraftError, match=r"free some space there"), atomic_folder(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
