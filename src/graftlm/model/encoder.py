"""The encoder stack: it keeps every state, because a bridge may read any of them."""

from dataclasses import replace
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from graftlm.model.adapter import Adapter, RowAdapters
from graftlm.model.attention import Gate
from graftlm.model.block import Block, Layers, View, packed
from graftlm.model.config import StackConfig
from graftlm.model.embedding import Embedding
from graftlm.model.grouping import Group
from graftlm.model.mask import visible
from graftlm.model.norm import make_norm
from graftlm.model.relative_bias import RelativeBias
from graftlm.model.rotary import Rotary
from graftlm.model.stem import Stem


class Encoder(nn.Module):
    """Layers over the source, with an attention as GraftConfig names it. Without `own_embedding` it is given embedded
    tokens."""

    # transformers' generate asks the encoder for the name of the input that it shares with the model.
    main_input_name = "input_ids"

    def __init__(self, config: StackConfig, *, attention: str, own_embedding: bool) -> None:
        super().__init__()
        self.config = config
        self.attention = attention
        if own_embedding:
            self.embedding = Embedding(config.vocab_size, config.hidden_size, config.embedding_scale)
        self.stem = Stem(config)
        self.layers = Layers(Block(config, i, gated=attention == "gated") for i in range(config.num_layers))
        self.norm = make_norm(config) if config.final_norm else nn.Identity()
        if config.relative_bias is not None:
            self.relative_bias = RelativeBias(config.relative_bias, config.num_heads)
        self.rotary = Rotary(config)

    def forward(
        self,
        embedded: Tensor,
        mask: Tensor,
        positions: Tensor,
        adapter: Adapter | None = None,
        groups: tuple[Group, ...] | None = None,
    ) -> list[Tensor]:
        """States h_0 … h_N, raw, each (B, S, D). Shapes: embedded (B, S, D), mask and positions (B, S).

        With `groups` the one row holds examples without padding, which stand where these say.
        """
        views = self.views(embedded, mask, positions, groups)
        states: list[Tensor] = [self.stem(embedded, positions)]
        for layer, beside in zip(self.layers, RowAdapters((adapter,)).layers(len(self.layers)), strict=True):
            states.append(layer(states[-1], views[layer.layer_type], deltas=beside))
        return states

    def set_attention(self, attention: str) -> None:
        """Let it see as `attention` says; gates come closed, and go."""
        self.attention = attention
        for layer in self.layers:
            layer.attention.gate = None
            if attention == "gated":
                gate = Gate(self.config.hidden_size, self.config.num_heads, bias=False)
                layer.attention.gate = gate.to(layer.attention.q_proj.weight)

    def output(self, state: Tensor) -> Tensor:
        """The last state as what stands after the layers leaves it. Shapes: (B, S, D) -> the same."""
        normed: Tensor = self.norm(state)
        dropout = self.config.output_dropout if self.training else 0.0
        return F.dropout(normed, dropout) if dropout else normed

    def views(
        self, embedded: Tensor, mask: Tensor, positions: Tensor, groups: tuple[Group, ...] | None = None
    ) -> dict[str, View]:
        """Masks and rotary tables by layer type."""
        rotary = self.rotary(positions, embedded.dtype)
        if groups is None:
            views = self._seen(mask, positions)
        else:
            views = packed([self._seen(group.valid, positions[0][group.tokens]) for group in groups], groups)
        return {kind: replace(view, rotary=rotary.get(kind)) for kind, view in views.items()}

    def _seen(self, mask: Tensor, positions: Tensor) -> dict[str, View]:
        bias = None if self.config.relative_bias is None else self.relative_bias(positions, positions)
        seen, gated = partial(visible, positions, positions, mask), self.attention == "gated"
        views: dict[str, View] = {}
        for kind in dict.fromkeys(self.config.layer_types):
            # The config of an encoder with gates has the window of a causal one.
            stacks = self.config.bidirectional() if gated else self.config, self.config
            open_window, window = (stack.window if kind == "sliding_attention" else None for stack in stacks)
            views[kind] = View(
                mask=seen(causal=self.attention == "causal", window=open_window),
                causal_mask=seen(causal=True, window=window) if gated else None,
                bias=bias,
            )
        return views
