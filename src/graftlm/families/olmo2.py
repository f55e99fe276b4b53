"""OLMo 2. Source: transformers, models/olmo2 (configuration_olmo2.py, modeling_olmo2.py)."""

from graftlm.families.config_map import ConfigMap, given, same
from graftlm.families.llama import ATTENTION_BIAS, CORE, ROTARY
from graftlm.families.spec import ATTENTION, DERIVED_HEAD_DIM, EMBEDDINGS, MLP, QK_NORMS, ROTARY_BUFFERS, Family, layer
from graftlm.families.weight_map import WeightMap

OLMO2 = Family(
    name="olmo2",
    config=ConfigMap(
        (
            *CORE,
            DERIVED_HEAD_DIM,
            ATTENTION_BIAS,
            ROTARY,
            same("hidden_act", "activation"),
            given("norm_placement", lambda s: "output"),
            given("norm_in_fp32", lambda s: True),
            given("qk_norm", lambda s: True),
            given("qk_norm_over", lambda s: "all"),
            given("rotary_in_fp32", lambda s: True),
        )
    ),
    weights=WeightMap(
        (
            *EMBEDDINGS,
            *ATTENTION,
            *MLP,
            *QK_NORMS,
            *layer("post_attention_layernorm", "attention_out_norm"),
            *layer("post_feedforward_layernorm", "mlp_out_norm"),
        ),
        dropped=ROTARY_BUFFERS,
    ),
    architecture="Olmo2ForCausalLM",
)
