"""The families that graftlm knows, by model_type."""

from graftlm.errors import ConversionError, meant
from graftlm.families.bart import BART, MBART
from graftlm.families.bert import BERT, ROBERTA, XLM_ROBERTA
from graftlm.families.gemma import GEMMA
from graftlm.families.gemma2 import GEMMA2
from graftlm.families.gemma3 import GEMMA3, GEMMA3_WITH_IMAGES
from graftlm.families.gpt2 import GPT2
from graftlm.families.gpt_neox import GPT_NEOX
from graftlm.families.llama import LLAMA
from graftlm.families.marian import MARIAN
from graftlm.families.mistral import MISTRAL
from graftlm.families.mixtral import MIXTRAL
from graftlm.families.modernbert import MODERNBERT
from graftlm.families.olmo2 import OLMO2
from graftlm.families.phi3 import PHI3
from graftlm.families.qwen2 import QWEN2
from graftlm.families.qwen3 import QWEN3
from graftlm.families.qwen3_moe import QWEN3_MOE
from graftlm.families.smollm3 import SMOLLM3
from graftlm.families.spec import Family
from graftlm.families.t5 import MT5, T5
from graftlm.families.t5gemma import T5GEMMA
from graftlm.families.t5gemma2 import T5GEMMA2
from graftlm.model.config import GraftConfig

LIKE_LLAMA = (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3, GEMMA3_WITH_IMAGES, SMOLLM3, OLMO2)
WITH_EXPERTS = (MIXTRAL, QWEN3_MOE)
OTHER_CAUSAL_LMS = (PHI3, GPT2, GPT_NEOX)
ENCODER_DECODERS = (T5GEMMA, T5GEMMA2, T5, MT5, BART, MBART, MARIAN)
ENCODERS = (BERT, ROBERTA, XLM_ROBERTA, MODERNBERT)
FAMILIES: dict[str, Family] = {
    family.name: family for family in (*LIKE_LLAMA, *WITH_EXPERTS, *OTHER_CAUSAL_LMS, *ENCODER_DECODERS, *ENCODERS)
}
"""Every known family by its model_type."""

REFUSED = {
    "bloom": "its attention has ALiBi slopes",
    "deberta-v2": "its attention is disentangled into content and position",
    "deepseek_v2": "its attention keeps compressed keys and values",
    "deepseek_v3": "its attention keeps compressed keys and values",
    "gpt_oss": "its attention has sinks",
    "mamba": "it has no attention, and so no memory that a decoder could read",
    "mamba2": "it has no attention, and so no memory that a decoder could read",
    "mpt": "its attention has ALiBi slopes",
    "qwen3_next": "some of its layers have linear attention",
    "rwkv": "it has no attention, and so no memory that a decoder could read",
    "umt5": "each of its layers has a relative bias of its own",
}
"""Why models of these types cannot be read; others only lack their table."""


def family_of(model_type: object) -> Family:
    """The family of a config. Raises: ConversionError for one that is not known."""
    if model_type == GraftConfig.model_type:
        raise ConversionError("This model is a graft already; give the language model that it should be made of.")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        unknown = meant(model_type, FAMILIES, "nobody has written their table yet.")
        refused = REFUSED.get(str(model_type))
        reason = unknown if refused is None else f"{refused}."
        raise ConversionError(
            f"Models of type {model_type!r} are not supported: {reason} Known families are {', '.join(FAMILIES)}; "
            "docs/add_a_family.md says how to add one."
        )
    return FAMILIES[model_type]
