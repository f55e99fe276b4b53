"""The families that graftlm knows, by model_type."""

from graftlm.errors import ConversionError
from graftlm.families.bart import BART, MBART
from graftlm.families.gemma2 import GEMMA2
from graftlm.families.llama import LLAMA
from graftlm.families.marian import MARIAN
from graftlm.families.qwen3 import QWEN3
from graftlm.families.spec import Family
from graftlm.families.t5 import MT5, T5
from graftlm.model.config import GraftConfig

FAMILIES: dict[str, Family] = {family.name: family for family in (LLAMA, QWEN3, GEMMA2, T5, MT5, BART, MBART, MARIAN)}
"""Every known family by its model_type."""


def family_of(model_type: object) -> Family:
    """The family of a config. Raises: ConversionError for one that is not known."""
    if model_type == GraftConfig.model_type:
        raise ConversionError("This model is a graft already; give the language model that it should be made of.")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ConversionError(
            f"Models of type {model_type!r} are not supported yet; known families are {', '.join(FAMILIES)} "
            "(CONTRIBUTING.md says how to add one)."
        )
    return FAMILIES[model_type]
