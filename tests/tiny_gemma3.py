"""A tiny Gemma 3 that reads images too."""

from pathlib import Path

from safetensors.torch import save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedModel

from graftlm.families.tensors import SINGLE
from tiny import hf_config, randomise, tokenizer

VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def store_gemma3(folder: Path, layout: str = "saved", tied: bool = True) -> PreTrainedModel:
    """transformers' own model with its tower, stored in `folder`."""
    text = hf_config("gemma3_text")
    config = Gemma3Config(
        text_config=text, vision_config=VISION, mm_tokens_per_image=1, tie_word_embeddings=tied, eos_token_id=[2, 5]
    )
    model = Gemma3ForConditionalGeneration._from_config(config, attn_implementation="eager")
    randomise(model, norm_centre=0.0)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    if layout == "in memory":
        held = {name: tensor for name, tensor in model.state_dict().items() if not (tied and name == "lm_head.weight")}
        save_file(held, folder / SINGLE, metadata={"format": "pt"})
    return model
