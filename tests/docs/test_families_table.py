"""The table of families says what the registry holds."""

import re
from pathlib import Path

import pytest

from graftlm.adaptation.export import CAUSAL_LM, formats
from graftlm.families.registry import FAMILIES
from graftlm.model.causal_lm import CausalLM
from graftlm.model.encoder_model import EncoderModel

PAGE = Path(__file__).parents[2] / "docs" / "families.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if re.match(r"\| `", line)
]


def test_every_family_has_its_row() -> None:
    assert [row[0].strip("`") for row in ROWS] == list(FAMILIES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_it_says(row: list[str]) -> None:
    family = FAMILIES[row[0].strip("`")]
    kinds = {CausalLM: "language model", EncoderModel: "encoder"}
    assert row[2] == kinds.get(family.model, "encoder–decoder")
    formatted = CAUSAL_LM if family.model is CausalLM else family.name
    assert (row[4] != "no") == (formatted in formats())
    if row[4] != "no":
        assert row[4].startswith(f"`{formatted}`")
    if family.written_as is not None:
        assert row[4].endswith(f"as {family.written_as.name}")
    assert row[5] == "yes"
    assert (row[6] == "yes") == (family.model is CausalLM)


@pytest.mark.parametrize("page", sorted(PAGE.parent.glob("*.md")), ids=lambda page: page.name)
def test_linked_files_exist(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link
