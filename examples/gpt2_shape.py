"""GPT-2's shape with random weights: how long a token takes to compile and to run. Names are those of the published weights.

    python examples/gpt2_shape.py --layers 2                     # small
    python examples/gpt2_shape.py --layers 12 --tokens 64        # the 124M model
    python examples/gpt2_shape.py --weights model.safetensors    # real weights, if you have them
"""
import argparse
import time

import numpy as np

from glassgrad import Tensor, nn
from glassgrad import TinyJit as jit


class Conv1D:
    """A linear layer whose weight stands (in, out), as GPT-2's."""
    def __init__(self, inner: int, outer: int):
        self.weight, self.bias = Tensor.normal(inner, outer, std=0.02), Tensor.zeros(outer)
    def __call__(self, x: Tensor) -> Tensor: return x.linear(self.weight, self.bias)


class Attention:
    def __init__(self, dim: int, heads: int): self.c_attn, self.c_proj, self.heads = Conv1D(dim, 3 * dim), Conv1D(dim, dim), heads

    def __call__(self, x: Tensor) -> Tensor:
        n, t, dim = x.shape
        q, k, v = [y.reshape(n, t, self.heads, -1).transpose(1, 2) for y in self.c_attn(x).chunk(3, dim=-1)]
        return self.c_proj(q.scaled_dot_product_attention(k, v, is_causal=True).transpose(1, 2).reshape(n, t, dim))


class Feed:
    def __init__(self, dim: int): self.c_fc, self.c_proj = Conv1D(dim, 4 * dim), Conv1D(4 * dim, dim)
    def __call__(self, x: Tensor) -> Tensor: return self.c_proj(self.c_fc(x).gelu())


class Block:
    def __init__(self, dim: int, heads: int):
        self.ln_1, self.ln_2, self.attn, self.mlp = nn.LayerNorm(dim), nn.LayerNorm(dim), Attention(dim, heads), Feed(dim)

    def __call__(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT2:
    def __init__(self, layers: int = 12, dim: int = 768, heads: int = 12, words: int = 50257, places: int = 1024):
        self.wte, self.wpe, self.ln_f = nn.Embedding(words, dim), nn.Embedding(places, dim), nn.LayerNorm(dim)
        self.h = [Block(dim, heads) for _ in range(layers)]

    def __call__(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(Tensor.arange(tokens.shape[1]))
        return self.ln_f(x.sequential(self.h))[:, -1] @ self.wte.weight.transpose(0, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--words", type=int, default=50257)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--weights", help="GPT-2's safetensors file")
    args = parser.parse_args()
    model = GPT2(args.layers, args.dim, args.dim // 64, args.words)
    if args.weights:
        weights = {name.removeprefix("transformer."): x for name, x in nn.state.safe_load(args.weights).items()}
        nn.state.load_state_dict(model, weights, strict=False)
    tokens = Tensor(np.random.default_rng(0).integers(0, args.words, (1, args.tokens), dtype=np.int32))
    forward = jit(lambda t: model(t).argmax(-1))
    for i in range(5):
        start = time.perf_counter()
        word = forward(tokens).item()
        print(f"run {i}: {(time.perf_counter() - start) * 1e3:8.1f} ms, next token {word}")


if __name__ == "__main__": main()
