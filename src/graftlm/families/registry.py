"""The families that graftlm knows, by model_type."""

from graftlm.errors import ConversionError
from graftlm.families.gemma2 import GEMMA2
from graftlm.families.gpt2 import GPT2
from graftlm.families.gpt_neox import GPT_NEOX
from graftlm.families.llama import LLAMA
from graftlm.families.mixtral import MIXTRAL
from graftlm.families.phi3 import PHI3
from graftlm.families.qwen3 import QWEN3
from graftlm.families.qwen3_moe import QWEN3_MOE
from graftlm.families.spec import Family
from graftlm.model.config import GraftConfig

FAMILIES: dict[str, Family] = {
    family.name: family for family in (LLAMA, QWEN3, QWEN3_MOE, GEMMA2, PHI3, MIXTRAL, GPT2, GPT_NEOX)
}
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
