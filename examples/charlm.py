"""A small transformer learns to write like a text, letter by letter; then writes some.

    python examples/charlm.py tinyshakespeare.txt --steps 500
"""
import argparse

import numpy as np
from progress import progress

from glassgrad import Tensor, nn
from glassgrad import TinyJit as jit


class Block:
    def __init__(self, dim: int, heads: int):
        self.heads, self.norm_a, self.norm_b = heads, nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def __call__(self, x: Tensor) -> Tensor:
        n, t, dim = x.shape
        q, k, v = [y.reshape(n, t, self.heads, -1).transpose(1, 2) for y in self.qkv(self.norm_a(x)).chunk(3, dim=-1)]
        x = x + self.out(q.scaled_dot_product_attention(k, v, is_causal=True).transpose(1, 2).reshape(n, t, dim))
        return x + self.down(self.up(self.norm_b(x)).gelu())


class Model:
    def __init__(self, letters: int, context: int, dim: int, layers: int):
        self.letter, self.place = nn.Embedding(letters, dim), nn.Embedding(context, dim)
        self.blocks = nn.Sequential([Block(dim, max(dim // 32, 1)) for _ in range(layers)])
        self.norm, self.head = nn.RMSNorm(dim), nn.Linear(dim, letters, bias=False)

    def __call__(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.letter(x) + self.place(Tensor.arange(x.shape[1])))))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="a text file, for instance tinyshakespeare.txt")
    for name, default in (("steps", 300), ("batch", 32), ("context", 64), ("dim", 64), ("layers", 2), ("write", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    with open(args.text, encoding="utf-8") as file: text = file.read()
    letters = sorted(set(text))
    data = np.searchsorted(letters, list(text)).astype(np.int32)
    model = Model(len(letters), args.context, args.dim, args.layers)
    optimizer = nn.optim.AdamW(nn.state.get_parameters(model), lr=3e-3)
    schedule = nn.optim.WarmupLR(optimizer, args.steps // 20, nn.optim.CosineAnnealingLR, T_max=args.steps)

    @jit
    def train_step(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(x).flatten(0, 1).sparse_categorical_crossentropy(y.flatten())
        loss.backward()
        nn.optim.clip_grad_norm_(optimizer.params, 1.0)
        optimizer.step()
        return loss

    rng, losses = np.random.default_rng(0), []
    with Tensor.train():
        for _ in progress(range(args.steps), "reading"):
            at = rng.integers(0, len(data) - args.context - 1, (args.batch, 1)) + np.arange(args.context + 1)
            losses.append(train_step(Tensor(data[at[:, :-1]]), Tensor(data[at[:, 1:]])).item())
            schedule.step()
    print(f"loss per letter: {np.mean(losses[:5]):.2f} at first, {np.mean(losses[-20:]):.2f} now")

    next_letter = jit(lambda x: model(x)[0])
    written = list(data[:args.context])
    for _ in range(args.write):
        scores = next_letter(Tensor(np.array([written[-args.context:]], np.int32))).numpy()[-1] / 0.8
        chance = np.exp(scores - scores.max())
        written.append(rng.choice(len(letters), p=chance / chance.sum()))
    print("".join(letters[i] for i in written[args.context:]))


if __name__ == "__main__": main()
