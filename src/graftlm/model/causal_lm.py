"""CausalLM: the donor LLM in this package's own modules, and the teacher in distillation."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput, can_return_tuple

from graftlm.errors import ConfigError
from graftlm.model.config import CausalLMConfig, StackConfig
from graftlm.model.decoder import Decoder, Placement
from graftlm.model.kernels import Linear
from graftlm.model.position import positions_from_mask
from graftlm.model.pretrained import GraftPreTrainedModel, token_loss


@dataclass
class CausalLMOutput(ModelOutput):
    """Loss and logits of a causal LM."""

    loss: Tensor | None = None
    logits: Tensor | None = None


class CausalLM(GraftPreTrainedModel):
    """A decoder without memory: the donor LLM in this package's own modules, and the teacher in distillation."""

    config_class = CausalLMConfig
    main_input_name = "input_ids"
    base_model_prefix = ""

    def __init__(self, config: CausalLMConfig) -> None:
        super().__init__(config)
        if not isinstance(config.decoder, StackConfig):
            raise ConfigError("A causal LM needs a decoder.")
        self.decoder = Decoder(config.decoder)
        self.lm_head = Linear(config.decoder.hidden_size, config.decoder.vocab_size, bias=config.decoder.logit_bias)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The table that reads the tokens."""
        return self.decoder.embedding

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> CausalLMOutput:
        """Logits (B, T, V) of the next token everywhere; `labels` (B, T) are shifted here, as stock causal LMs do."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.decoder(input_ids, Placement(positions=positions_from_mask(mask), valid=mask))
        logits = self.logits(states[-1])
        loss = None if labels is None else token_loss(logits[:, :-1], labels[:, 1:], num_items_in_batch)
        return CausalLMOutput(loss=loss, logits=logits)
