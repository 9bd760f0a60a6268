"""Attention: multi-head attention and the layers of transformers. Names of weights are PyTorch's."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glassgrad.nn.layers import LayerNorm, Linear
from glassgrad.tensor.tensor import Tensor
from glassgrad.uop.errors import ShapeError, UsageError

Function = Callable[[Tensor], Tensor]


class MultiheadAttention:
    """Attention of several heads, each over its share of the width: (query, key, value) -> (output, weights).

    shapes:  query (L, N, E), key (S, N, kdim), value (S, N, vdim), batches first with batch_first, or without N -> output as the query;
             weights (N, L, S), the mean over the heads, or (N, num_heads, L, S) with average_attn_weights=False; None with
             need_weights=False
    masks:   true (or -inf) is what may not be seen: key_padding_mask (N, S), attn_mask (L, S) or (N * num_heads, L, S); is_causal:
             nothing later
    errors:  UsageError if the heads do not divide the width; ShapeError if the shapes do not fit
    source:  A. Vaswani et al., Attention is all you need (2017); torch.nn.MultiheadAttention
    """
    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, kdim: int | None = None,
                 vdim: int | None = None, batch_first: bool = False) -> None:
        if num_heads < 1 or embed_dim % num_heads:
            raise UsageError(f"MultiheadAttention of width {embed_dim} with {num_heads} heads\n  heads must divide the width")
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.is_split = kdim not in (None, embed_dim) or vdim not in (None, embed_dim)
        if not self.is_split:
            self.in_proj_weight = Tensor.glorot_uniform(3 * embed_dim, embed_dim, requires_grad=True)
        else:
            self.q_proj_weight = Tensor.glorot_uniform(embed_dim, embed_dim, requires_grad=True)
            self.k_proj_weight = Tensor.glorot_uniform(embed_dim, kdim or embed_dim, requires_grad=True)
            self.v_proj_weight = Tensor.glorot_uniform(embed_dim, vdim or embed_dim, requires_grad=True)
        self.in_proj_bias = Tensor.zeros(3 * embed_dim, requires_grad=True) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None, need_weights: bool = True,
                 attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                 is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        single = query.ndim == 2
        if single: query, key, value = (x.unsqueeze(0) for x in (query, key, value))
        elif not self.batch_first: query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        if query.ndim != 3 or query.shape[2] != self.embed_dim or key.shape[:2] != value.shape[:2]:
            raise ShapeError(f"MultiheadAttention({self.embed_dim}, {self.num_heads}) of {query.shape}, {key.shape}, {value.shape}\n"
                             f"  the query must be {self.embed_dim} wide, key and value equally long")
        q, k, v = self.projected(query, key, value)
        mask = self.mask(key_padding_mask, attn_mask, is_causal, query, key)
        if not need_weights: out, weights = q.scaled_dot_product_attention(k, v, mask, self.dropout if Tensor.training else 0.0), None
        else:
            scores = q.matmul(k.transpose(-2, -1)) * (self.embed_dim // self.num_heads) ** -0.5
            weights = (scores if mask is None else scores + mask).softmax(-1)
            out = weights.dropout(self.dropout) @ v
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights: weights = weights.mean(1)
        if single: return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), weights

    def projected(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Query, key and value as (N, heads, length, width of a head)."""
        weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight) if self.is_split else self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3) if self.in_proj_bias is not None else (None,) * 3
        parts = [x.linear(w.transpose(0, 1), b) for x, w, b in zip((query, key, value), weights, biases)]
        return [x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2) for x in parts]

    def mask(self, padding: Tensor | None, mask: Tensor | None, is_causal: bool, query: Tensor, key: Tensor) -> Tensor | None:
        """What is added to the scores (N, heads, L, S), or None."""
        n, length, width = query.shape[0], query.shape[1], key.shape[1]
        total = None
        if mask is None and is_causal: mask = Tensor.ones(length, width, device=query.device).tril() == 0
        if mask is not None:
            total = blocked(mask, query)
            total = total.reshape(n, self.num_heads, length, width) if mask.ndim == 3 else total
        if padding is not None:
            more = blocked(padding, query).reshape(n, 1, 1, width)
            total = more if total is None else total + more
        return total


def blocked(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as numbers to be added: -inf where a bool one is true."""
    return mask.where(float("-inf"), 0.0).cast(like.dtype) if mask.dtype.is_bool else mask.cast(like.dtype)


class Block:
    """Base of the transformer layers: what they share."""
    def __init__(self, d_model: int, nhead: int, dim_feedforward: int, dropout: float, activation: str | Function, layer_norm_eps: float,
                 batch_first: bool, norm_first: bool, bias: bool) -> None:
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first)
        self.linear1, self.linear2 = Linear(d_model, dim_feedforward, bias), Linear(dim_feedforward, d_model, bias)
        self.norm1, self.norm2 = LayerNorm(d_model, layer_norm_eps), LayerNorm(d_model, layer_norm_eps)
        self.dropout, self.norm_first = dropout, norm_first
        self.activation = {"relu": Tensor.relu, "gelu": lambda x: x.gelu("none")}.get(activation, activation)
        if isinstance(self.activation, str):
            raise UsageError(f"a transformer layer with activation={activation!r}\n  try: 'relu', 'gelu' or a function")

    def added(self, x: Tensor, norm: Function, f: Function) -> Tensor:
        """x + f(x), normalised before or after."""
        if self.norm_first: return x + f(norm(x)).dropout(self.dropout)
        return norm(x + f(x).dropout(self.dropout))
    def feed(self, x: Tensor) -> Tensor:
        """The two linear layers."""
        return self.linear2(self.activation(self.linear1(x)).dropout(self.dropout))


class TransformerEncoderLayer(Block):
    """Attention of a sequence to itself, then two linear layers, each added to what came in and normalised.

    source:  torch.nn.TransformerEncoderLayer
    """
    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1, activation: str | Function = "relu",
                 layer_norm_eps: float = 1e-5, batch_first: bool = False, norm_first: bool = False, bias: bool = True) -> None:
        super().__init__(d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias)

    def __call__(self, src: Tensor, src_mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
                 is_causal: bool = False) -> Tensor:
        def attend(x: Tensor) -> Tensor: return self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal)[0]
        return self.added(self.added(src, self.norm1, attend), self.norm2, self.feed)


class TransformerDecoderLayer(Block):
    """As the encoder's layer, with attention to the encoder's result (`memory`) in between.

    source:  torch.nn.TransformerDecoderLayer
    """
    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1, activation: str | Function = "relu",
                 layer_norm_eps: float = 1e-5, batch_first: bool = False, norm_first: bool = False, bias: bool = True) -> None:
        super().__init__(d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first)
        self.norm3 = LayerNorm(d_model, layer_norm_eps)

    def __call__(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
                 tgt_key_padding_mask: Tensor | None = None,
                 memory_key_padding_mask: Tensor | None = None, tgt_is_causal: bool = False, memory_is_causal: bool = False) -> Tensor:
        def attend(x: Tensor) -> Tensor: return self.self_attn(x, x, x, tgt_key_padding_mask, False, tgt_mask, is_causal=tgt_is_causal)[0]
        def recall(x: Tensor) -> Tensor:
            return self.multihead_attn(x, memory, memory, memory_key_padding_mask, False, memory_mask, is_causal=memory_is_causal)[0]
        x = self.added(tgt, self.norm1, attend)
        return self.added(self.added(x, self.norm2, recall), self.norm3, self.feed)


class TransformerEncoder:
    """Encoder layers one after the other: `make()` gives one.

    source:  torch.nn.TransformerEncoder, which copies one layer; here each begins with weights of its own
    """
    def __init__(self, make: Callable[[], Any], num_layers: int, norm: Function | None = None) -> None:
        self.layers, self.norm = [make() for _ in range(num_layers)], norm
    def __call__(self, src: Tensor, mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
                 is_causal: bool = False) -> Tensor:
        for layer in self.layers: src = layer(src, mask, src_key_padding_mask, is_causal)
        return src if self.norm is None else self.norm(src)


class TransformerDecoder:
    """Decoder layers one after the other: `make()` gives one.

    source:  torch.nn.TransformerDecoder
    """
    def __init__(self, make: Callable[[], Any], num_layers: int, norm: Function | None = None) -> None:
        self.layers, self.norm = [make() for _ in range(num_layers)], norm
    def __call__(self, tgt: Tensor, memory: Tensor, *masks: Tensor | None, **named: Any) -> Tensor:
        for layer in self.layers: tgt = layer(tgt, memory, *masks, **named)
        return tgt if self.norm is None else self.norm(tgt)


class Transformer:
    """An encoder and a decoder that attends to its result.

    shapes:  src (S, N, E), tgt (T, N, E) -> (T, N, E), batches first with batch_first
    source:  torch.nn.Transformer
    """
    def __init__(self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
                 dim_feedforward: int = 2048,
                 dropout: float = 0.1, activation: str | Function = "relu", layer_norm_eps: float = 1e-5, batch_first: bool = False,
                 norm_first: bool = False, bias: bool = True) -> None:
        facts = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias)
        self.encoder = TransformerEncoder(lambda: TransformerEncoderLayer(*facts), num_encoder_layers, LayerNorm(d_model, layer_norm_eps))
        self.decoder = TransformerDecoder(lambda: TransformerDecoderLayer(*facts), num_decoder_layers, LayerNorm(d_model, layer_norm_eps))

    def __call__(self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None, tgt_mask: Tensor | None = None,
                 memory_mask: Tensor | None = None,
                 src_key_padding_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
                 memory_key_padding_mask: Tensor | None = None) -> Tensor:
        memory = self.encoder(src, src_mask, src_key_padding_mask)
        return self.decoder(tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)

    @staticmethod
    def generate_square_subsequent_mask(n: int) -> Tensor:
        """(n, n): -inf above the diagonal, 0 elsewhere: nothing later may be seen."""
        return (Tensor.ones(n, n).tril() == 0).where(float("-inf"), 0.0)
