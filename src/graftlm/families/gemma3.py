"""Gemma 3: the text models, and the text part of those that read images too.

Source: transformers, models/gemma3 (configuration_gemma3.py, modeling_gemma3.py).
"""

import dataclasses

from graftlm.errors import ConversionError
from graftlm.families.config_map import ConfigMap, Rule, given, ignored, pinned, same, within
from graftlm.families.gemma2 import CAUSAL, GEMMA_STACK, SANDWICH, WINDOW
from graftlm.families.llama import SIZES
from graftlm.families.spec import ATTENTION, EMBEDDINGS, MLP, QK_NORMS, ROTARY_BUFFERS, Family
from graftlm.families.stock_config import Values
from graftlm.families.weight_map import BASE, REST, TensorRule, WeightMap, rename

TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")
OF_IMAGES = ("vision_config", "mm_tokens_per_image", "boi_token_index", "eoi_token_index", "image_token_index")
IMAGE_PARTS = ("vision_tower", "multi_modal_projector")


def rotary_by_layer_type(values: Values) -> Values:
    """Rotary parameters of their own for each type of layer that the stack has."""
    kinds = {kind: dict(values["rope_parameters"][kind]) for kind in dict.fromkeys(values["layer_types"])}
    if any(parameters.get("partial_rotary_factor") not in (None, 1.0) for parameters in kinds.values()):
        raise ConversionError("rope_parameters.partial_rotary_factor (only heads that are rotated whole are known)")
    return {"rotary": kinds}


def tokens_above(values: Values) -> Values:
    """Special tokens that the outer config names go before those of the text."""
    return {name: values[name] for name in TOKENS if values.get(name) is not None}


GEMMA3_STACK = (
    *GEMMA_STACK,
    Rule(
        ("rope_parameters", "rope_theta", "rope_scaling", "rope_local_base_freq"),
        rotary_by_layer_type,
        lambda o: {"rope_parameters": {kind: dict(parameters) for kind, parameters in o["rotary"].items()}},
    ),
    CAUSAL,
    ignored("attn_logit_softcapping", "transformers reads it and does not apply it"),
    ignored("sliding_window_pattern", "transformers has folded it into layer_types"),
    ignored("cache_implementation", "a choice of cache, not of the model"),
    given("qk_norm", lambda s: True),
)
TEXT = (*SIZES, *GEMMA3_STACK, WINDOW)

GEMMA3 = Family(
    name="gemma3_text",
    config=ConfigMap(TEXT),
    weights=WeightMap(
        (
            *EMBEDDINGS,
            *ATTENTION,
            *MLP,
            *SANDWICH,
            *QK_NORMS,
        ),
        dropped=ROTARY_BUFFERS,
    ),
    architecture="Gemma3ForCausalLM",
)


def within_images(rule: TensorRule) -> TensorRule:
    """A text model's rule, for the same tensor in a model that reads images too."""
    return dataclasses.replace(rule, source=rule.source.replace("model.", BASE, 1))


GEMMA3_WITH_IMAGES = Family(
    name="gemma3",
    config=ConfigMap(
        (
            *within("text_config", TEXT),
            # transformers caps the logits of the text models alone.
            given("logit_softcap", lambda s: None),
            same("tie_word_embeddings"),
            Rule(TOKENS, tokens_above, lambda o: {name: o[name] for name in TOKENS}),
            *(ignored(name, "images are left out") for name in OF_IMAGES),
            ignored("initializer_range", "the text's own is read"),
            pinned("is_encoder_decoder", False, "only decoder-only models of this family are known"),
        ),
        nested=("text_config",),
    ),
    weights=WeightMap(
        (*map(within_images, GEMMA3.weights.rules), rename("language_model.lm_head.weight", "lm_head.weight")),
        dropped=tuple(f"{outer}{part}.{REST}" for outer in ("", "model.") for part in IMAGE_PARTS),
        bases=("language_model.model.", "model.language_model."),
    ),
    architecture="Gemma3ForConditionalGeneration",
    written_as=GEMMA3,
)
