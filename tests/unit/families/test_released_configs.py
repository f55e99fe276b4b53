"""Configs and tensor names of released models are read as their cards say.

`released/*.json` holds, under a model's page on the hub: the fields of its config.json, written down without a copy of
the page at hand and so maybe not all of them; what our config must say; and the shape of every tensor that it stores
(bfloat16 where no dtype is given). In names {a,b} stands for either and {0..3} for each number. A `note` says which
values are stand-ins.
"""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from graftlm.errors import ConversionError
from graftlm.families import donor
from graftlm.families.registry import FAMILIES, family_of
from graftlm.families.stock_config import complete
from graftlm.families.tensors import BESIDE, DTYPES, TensorFolder, TensorInfo

FILES = sorted((Path(__file__).parent / "released").glob("*.json"))
RELEASED: dict[str, dict[str, Any]] = {
    page: model for file in FILES for page, model in json.loads(file.read_text(encoding="utf-8")).items()
}
OF_TRANSFORMERS_4: dict[str, Any] = {
    "add_cross_attention": False,
    "begin_suppress_tokens": None,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "exponential_decay_length_penalty": None,
    "finetuning_task": None,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "max_length": 20,
    "num_beams": 1,
    "prefix": None,
    "pruned_heads": {},
    "sep_token_id": None,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tokenizer_class": None,
    "top_k": 50,
    "torchscript": False,
    "use_bfloat16": False,
}
"""What it stored in any config, and in full in one that is nested in another."""

CHOICE = re.compile(r"(\{[^{}]*\})")


def names(pattern: str) -> Iterator[str]:
    """Every name that a pattern stands for.

    >>> list(names("h.{0..1}.{q,k}"))
    ['h.0.q', 'h.0.k', 'h.1.q', 'h.1.k']
    """

    def choices(part: str) -> list[str]:
        if not part.startswith("{"):
            return [part]
        first, dots, last = part[1:-1].partition("..")
        return [str(i) for i in range(int(first), int(last) + 1)] if dots else part[1:-1].split(",")

    return map("".join, itertools.product(*map(choices, CHOICE.split(pattern))))


class Released(TensorFolder):
    """The tensors of a release without their weights: heads are ones and all others zeros."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        self.folder = Path("released")
        self.infos = {name: self._info(shape) for pattern, shape in tensors.items() for name in names(pattern)}

    def _info(self, shape: list[Any]) -> TensorInfo:
        dtype, *sizes = shape if shape and isinstance(shape[0], str) else ("BF16", *shape)
        return TensorInfo(self.folder, tuple(sizes), (DTYPES | BESIDE)[dtype])

    def read(self, name: str) -> Tensor:
        info = self.infos[name]
        return torch.full((), float("lm_head" in name), dtype=info.dtype).expand(info.shape)


def at(config: Any, name: str) -> Any:
    """A value of ours by its dotted name, as plain JSON."""
    value = config.to_dict()
    for part in name.split("."):
        value = value[part]
    return json.loads(json.dumps(value))


def test_every_family_has_a_released_model() -> None:
    assert {model["config"]["model_type"] for model in RELEASED.values()} == FAMILIES.keys()
    assert all(page.startswith("https://huggingface.co/") for page in RELEASED)


@pytest.mark.parametrize("page", RELEASED)
def test_the_config_is_read_as_the_model_card_says(page: str) -> None:
    raw = RELEASED[page]["config"]
    config = family_of(raw["model_type"]).config.read(raw, complete(raw))
    for name, expected in RELEASED[page]["read"].items():
        assert at(config, name) == expected, name


@pytest.mark.parametrize("page", RELEASED)
def test_what_transformers_4_stored_in_any_config_changes_nothing(page: str) -> None:
    raw = RELEASED[page]["config"]
    table = family_of(raw["model_type"]).config

    def filled(values: dict[str, Any], path: str = "") -> dict[str, Any]:
        """The same config with these fields beside its own, at every level that the table reads."""
        inner = {name: filled(values[name], f"{path}{name}.") for name in values if f"{path}{name}" in table.nested}
        return OF_TRANSFORMERS_4 | values | inner

    assert table.read(filled(raw), complete(filled(raw))).to_dict() == table.read(raw, complete(raw)).to_dict()


@pytest.mark.parametrize("change", [{"tie_encoder_decoder": True}, {"pruned_heads": {"0": [1]}}], ids=str)
def test_such_a_field_that_says_something_is_refused(change: dict[str, Any]) -> None:
    raw = RELEASED["https://huggingface.co/google-t5/t5-small"]["config"] | change
    with pytest.raises(ConversionError, match=f"{next(iter(change))} .unknown field"):
        family_of("t5").config.read(raw, complete(raw))


@pytest.mark.parametrize("page", RELEASED)
def test_every_tensor_has_its_place(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stored tensor is unknown, none of ours is missing, and all have the shape that the config promises."""
    model = RELEASED[page]
    (tmp_path / "config.json").write_text(json.dumps(model["config"]), encoding="utf-8")
    tensors = Released(model["tensors"])
    monkeypatch.setattr(donor, "UnstackedFolder", lambda folder, stacked: tensors)
    found = donor.open_donor(tmp_path)
    assert found.places.keys() == found.shapes.keys()
    if found.family.config.head_by_weights:
        assert found.config.tie_word_embeddings is ("lm_head.weight" not in tensors.infos)
