"""Whatever stands in a config.json: the donor is read, or refused in one sentence, soon and within bounded memory."""

import contextlib
import functools
import json
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graftlm.errors import CheckpointError, ConfigError, ConversionError
from graftlm.families.donor import open_donor
from graftlm.families.registry import FAMILIES
from tiny_encoders import ENCODERS, store_encoder
from tiny_gemma3 import store_gemma3
from tiny_seq2seq import SEQ2SEQ, store_seq2seq
from tiny_t5gemma import T5GEMMAS, store_t5gemma

SECONDS = 20
BYTES = 4 << 30
"""What one reading may take; a machine at work on other things is slow, and address space is not memory."""
HOSTILE = (-1, 0, 1, 2, 3, 2**31, 10**9, 10**15, 10**400, 0.5, 1e308, float("nan"), float("inf"), -float("inf"))
HOSTILE_TEXT = ("", "\n", "a\nb", "4", "silu", "default", "full_attention", "\ud800", "float32")
EXTREMES = (-1, 0, 10**9, 10**15, 10**400, float("nan"), [[1]])
SCALARS = st.none() | st.booleans() | st.sampled_from(HOSTILE) | st.sampled_from(HOSTILE_TEXT)
PLAIN = SCALARS | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
STORES: dict[str, Callable[[Path], Any]] = {
    "gemma3": store_gemma3,
    **{name: functools.partial(store_t5gemma, name) for name in T5GEMMAS},
    **{name: functools.partial(store_seq2seq, name) for name in SEQ2SEQ},
    **{name: functools.partial(store_encoder, name) for name in ENCODERS},
}
"""What stores a model of those families that are no plain language models."""


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def donor(request: pytest.FixtureRequest, tiny_lm: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of one family; only its config is ever written anew."""
    folder = tmp_path_factory.mktemp("donor") / "copy"
    if request.param in STORES:
        STORES[request.param](folder)
        return folder
    return Path(shutil.copytree(tiny_lm(request.param)[1], folder))


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Inside the block, time and memory end in an error."""

    def stop(*args: object) -> None:
        raise TimeoutError

    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, limits[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def check(folder: Path, config: Any) -> None:
    """The donor with this config is read, or refused as it should be."""
    path = folder / "config.json"
    original = path.read_bytes()
    path.write_text(json.dumps(config), encoding="utf-8")
    said = None
    try:
        with bounded():
            open_donor(folder)
    except (ConversionError, CheckpointError, ConfigError) as error:
        said = str(error)
    finally:
        path.write_bytes(original)
    if said is not None:
        assert said == " ".join(said.splitlines()), said
        assert said.endswith("."), said


def fields(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return values


def nested(values: dict[str, Any]) -> list[tuple[dict[str, Any] | list[Any], Any]]:
    """Every place in a config that holds a value: the container, and its key there."""
    found: list[tuple[Any, Any]] = []
    queue: list[Any] = [values]
    while queue:
        holder = queue.pop()
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                queue.append(holder[key])
    return found


@pytest.mark.parametrize("value", EXTREMES, ids=lambda v: repr(v)[:8])
@pytest.mark.slow
def test_any_field_may_hold_something_extreme(donor: Path, value: Any) -> None:
    for place in range(len(nested(fields(donor)))):
        spoil(donor, place, value)


def test_every_field_may_hold_something_extreme(donor: Path) -> None:
    """One value for each field, another one for the same field of the next family."""
    shift = sorted(FAMILIES).index(str(fields(donor)["model_type"]))
    for place in range(len(nested(fields(donor)))):
        spoil(donor, place, EXTREMES[(place + shift) % len(EXTREMES)])


def spoil(folder: Path, place: int, value: Any) -> None:
    config = fields(folder)
    holder, key = nested(config)[place]
    holder[key] = value
    check(folder, config)


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_few_fields_may_hold_anything_be_gone_or_be_new(donor: Path, data: st.DataObject) -> None:
    check_random(donor, data)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_many_fields_may_hold_anything_be_gone_or_be_new(donor: Path, data: st.DataObject) -> None:
    check_random(donor, data)


def check_random(donor: Path, data: st.DataObject) -> None:
    config = fields(donor)
    for _ in range(data.draw(st.integers(1, 4))):
        holder, key = data.draw(st.sampled_from(nested(config)))
        kind = data.draw(st.sampled_from(["replace", "drop", "add"]))
        if kind == "drop":
            del holder[key]
        elif kind == "replace" or isinstance(holder, list):
            holder[key] = data.draw(VALUES)
        else:
            holder[data.draw(st.text(max_size=5))] = data.draw(VALUES)
    check(donor, config)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(config=VALUES)
def test_a_config_may_be_anything(donor: Path, config: Any) -> None:
    check(donor, config)
