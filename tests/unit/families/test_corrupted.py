"""Damaged checkpoint folders: each is refused in one sentence that names the file, or its damage changes nothing."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from graftlm.errors import CheckpointError
from graftlm.families.donor import open_donor
from graftlm.families.shards import write_shards
from graftlm.families.tensors import INDEX, TensorFolder

TENSORS = {f"layers.{i}.weight": torch.arange(4.0 * i + 4).reshape(i + 1, 4) for i in range(3)}
SHAPES = {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tensors in two shards; not to be edited."""
    folder = tmp_path_factory.mktemp("whole")
    write_shards(folder, TENSORS, TENSORS.items(), 60)
    assert {path.name for path in folder.iterdir()} == {FIRST, SECOND, INDEX}
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def refusal(folder: Path) -> str | None:
    """What is said of a folder that does not hold TENSORS; None where its tensors are whole."""
    try:
        tensors = TensorFolder(folder)
        tensors.check(SHAPES)
    except CheckpointError as error:
        return str(error)
    assert all(torch.equal(tensors.read(name), tensor) for name, tensor in TENSORS.items())
    return None


def assert_refused(folder: Path, *words: str) -> None:
    said = refusal(folder)
    assert said is not None
    assert said.isprintable(), said
    for word in (str(folder), *words):
        assert word in said, said


def flips(path: Path, stop: int) -> Iterator[int]:
    """Put every other byte in the place of each of the first `stop` bytes in turn, and each time yield its place."""
    original = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for place in range(stop):
            for byte in {original[place] ^ 1 << bit for bit in range(8)} | set(b' "\\,0a'):
                if byte != original[place]:
                    file.seek(place)
                    file.write(bytes([byte]))
                    yield place
            file.seek(place)
            file.write(original[place : place + 1])


def test_a_changed_byte_of_the_index_is_found_where_it_matters(copy: Path) -> None:
    index = copy / INDEX
    text = index.read_text()
    start, stop = text.index('"weight_map"'), text.rindex("}")
    refused = 0
    for place in flips(index, len(text)):
        said = refusal(copy)
        refused += said is not None
        if said is None and start <= place < stop:
            found = json.loads(index.read_text())
            assert found["weight_map"] == json.loads(text)["weight_map"], place
        if said is not None:
            assert said.isprintable()
            assert str(copy) in said
            assert INDEX in said or "lacks the shards" in said
    assert refused > 2_000
    assert refusal(copy) is None


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_a_changed_byte_of_a_header_is_found(copy: Path, name: str) -> None:
    file = copy / name
    length = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    metadata = range(8, file.read_bytes().index(b"}"))
    harmless = []
    for place in flips(file, length):
        said = refusal(copy)
        if said is None:
            harmless.append(place)
        else:
            assert said.isprintable()
            assert name in said
    padding = len(file.read_bytes()[:length].rstrip(b" "))
    assert [place for place in harmless if place not in metadata and place < padding] == []
    assert refusal(copy) is None


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_a_file_of_another_length_is_found(copy: Path, name: str) -> None:
    file = copy / name
    original = file.read_bytes()
    for length in range(len(original)):
        file.write_bytes(original[:length])
        assert_refused(copy, name, "damaged or truncated")
    for tail in (b"\0", b" ", b"}", original):
        file.write_bytes(original + tail)
        assert_refused(copy, name, "damaged or truncated")
    file.write_bytes(original)
    assert refusal(copy) is None


def edit(name: str, **tensors: torch.Tensor | None) -> Damage:
    """Replace, add or take out (None) tensors `layers.N.weight` of a shard."""

    def damage(folder: Path) -> None:
        named = {f"layers.{key[1:]}.weight": tensor for key, tensor in tensors.items()}
        merged = load_file(folder / name) | named
        save_file({key: tensor for key, tensor in merged.items() if tensor is not None}, folder / name)

    return damage


def swap(folder: Path) -> None:
    (folder / FIRST).rename(folder / "x")
    (folder / SECOND).rename(folder / FIRST)
    (folder / "x").rename(folder / SECOND)


def as_folder(folder: Path) -> None:
    (folder / SECOND).unlink()
    (folder / SECOND).mkdir()


def placed(name: str, shard: Any) -> Damage:
    """Let the index place a tensor elsewhere."""

    def damage(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"][name] = shard
        (folder / INDEX).write_text(json.dumps(index))

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (edit(FIRST, t1=None), [INDEX, f"layers.1.weight is not in {FIRST}, where the index places it"]),
        (edit(FIRST, t1=torch.zeros(2, 3)), ["layers.1.weight has shape [2, 3] instead of [2, 4]"]),
        (edit(FIRST, t1=torch.zeros(8)), ["layers.1.weight has shape [8] instead of [2, 4]"]),
        (edit(FIRST, t7=torch.zeros(1)), [INDEX, f"{FIRST} holds layers.7.weight, which the index does not name"]),
        (edit(FIRST, t2=TENSORS["layers.2.weight"]), [f"{FIRST} holds layers.2.weight", f"places in {SECOND}"]),
        (swap, [INDEX, f"layers.0.weight is not in {FIRST}", f"{FIRST} holds layers.2.weight"]),
        (as_folder, [SECOND, "Is a directory"]),
        (placed("layers.1.weight", SECOND), [f"layers.1.weight is not in {SECOND}", f"{FIRST} holds layers.1.weight"]),
        (placed("layers.3.weight", SECOND), [f"layers.3.weight is not in {SECOND}"]),
        (placed("layers.1.weight", "a\nb"), ["lacks the shards 'a\\nb'"]),
        (placed("layers.1.weight", "a\0b"), ["lacks the shards 'a\\x00b'"]),
        (placed("layers.1.weight", "a" * 300), ["lacks the shards aaa"]),
        (placed("layers.1.weight", ""), [INDEX, "not a valid index"]),
        (placed("layers.1.weight", "."), [INDEX, "not a valid index"]),
        (placed("layers.1.weight", ".."), [INDEX, "not a valid index"]),
        (placed("layers.1.weight", f"x/{FIRST}"), [INDEX, "not a valid index"]),
        (placed("layers.1.weight", None), [INDEX, "not a valid index"]),
        (placed("layers.1.weight", [FIRST]), [INDEX, "not a valid index"]),
        (lambda folder: (folder / INDEX).write_text('{"weight_map": ' + "[" * 100_000), [INDEX, "not a valid index"]),
        (lambda folder: (folder / INDEX).write_text('{"weight_map": {}}'), ["layers.0.weight is missing"]),
        (lambda folder: (folder / INDEX).write_bytes(b"\xff\xfe"), [INDEX, "not a valid index"]),
        (lambda folder: (folder / INDEX).unlink(), ["holds no model.safetensors and no", INDEX]),
        *(
            (edit(SECOND, t2=torch.zeros(3, 4).to(dtype)), [SECOND, f"stores layers.2.weight as {shown}"])
            for dtype, shown in [
                (torch.int8, "I8"),
                (torch.int64, "I64"),
                (torch.bool, "BOOL"),
                (torch.float8_e4m3fn, "F8_E4M3"),
                (torch.complex64, "C64"),
            ]
        ),
    ],
)
def test_a_folder_that_does_not_hold_together_is_refused(copy: Path, damage: Damage, words: list[str]) -> None:
    damage(copy)
    assert_refused(copy, *words)


@pytest.mark.parametrize("name", [SECOND, INDEX])
def test_an_unreadable_file_is_named(copy: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / name).chmod(0)
    copy.chmod(0o755)
    # Another user could not come here by the full path.
    monkeypatch.chdir(copy)
    user = os.geteuid()
    if user == 0:  # Permissions do not hold for root.
        os.seteuid(65534)
    try:
        with pytest.raises(CheckpointError, match=f"{name} cannot be read \\(Permission denied\\); make it readable"):
            TensorFolder(".")
    finally:
        os.seteuid(user)


@pytest.fixture(scope="module")
def donor(tiny_lm: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny language model in shards; not to be edited."""
    folder = tmp_path_factory.mktemp("donor")
    tiny_lm("gemma2")[0].save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


EDITS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=8), st.integers(0, 8)), min_size=1)


def outlines(folder: Path) -> dict[str, Any]:
    """Shape and dtype of every tensor of a donor, of which each can be read."""
    tensors = open_donor(folder).tensors
    for name in tensors.infos:
        tensors.read(name)
    return {name: (info.shape, info.dtype) for name, info in tensors.infos.items()}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(victim=st.integers(0, 10), in_header=st.booleans(), edits=EDITS)
def test_whatever_happens_to_a_file_of_a_donor_is_refused_or_harmless(
    donor: Path, victim: int, in_header: bool, edits: list[tuple[float, bytes, int]]
) -> None:
    """At any places of one file, some bytes are replaced, put in or taken out."""
    said = ""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(donor, Path(name) / "copy"))
        files = sorted(path for path in folder.iterdir() if "safetensors" in path.name)
        file = files[victim % len(files)]
        content = bytearray(file.read_bytes())
        reach = 8 + int.from_bytes(content[:8], "little") if in_header and file.name != INDEX else len(content)
        for place, put, taken in edits:
            start = int(place * reach)
            content[start : start + taken] = put
        file.write_bytes(content)
        try:
            found = outlines(folder)
        except CheckpointError as error:
            said = str(error)
    if said:
        assert said.isprintable()
        assert str(folder) in said
    else:
        assert found == outlines(donor)
