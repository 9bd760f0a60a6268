"""Train a small convolutional network on MNIST (or Fashion-MNIST), print its accuracy, draw the loss.

    python examples/mnist.py                  # half a minute on a laptop
    VIZ=1 python examples/mnist.py --steps 20 # then open the page it names: every pass, every kernel
"""
import argparse
import os
import sys
import time

import numpy as np
from plot import save_curve
from progress import progress

from glassgrad import Tensor, nn
from glassgrad import TinyJit as jit
from glassgrad.nn.datasets import fashion_mnist, mnist
from glassgrad.uop.errors import FileError


class Model:
    def __init__(self):
        self.layers = nn.Sequential([
            nn.Conv2d(1, 16, 3), nn.BatchNorm(16), Tensor.relu, Tensor.max_pool2d,
            nn.Conv2d(16, 32, 3), nn.BatchNorm(32), Tensor.relu, Tensor.max_pool2d,
            lambda x: x.flatten(1), nn.Linear(800, 10)])

    def __call__(self, x: Tensor) -> Tensor: return self.layers((x.float() / 255 - 0.13) / 0.31)


def load(name: str):
    if name == "auto":
        for found, find in (("MNIST", mnist), ("Fashion-MNIST", fashion_mnist)):
            try: return found, find(download=False)
            except FileError: pass
    return name, {"auto": mnist, "mnist": mnist, "fashion": fashion_mnist}[name]()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--data", choices=["auto", "mnist", "fashion"], default="auto", help="auto: what is on this machine")
    parser.add_argument("--curve", default="mnist_loss.png", help="where the loss curve goes")
    args = parser.parse_args()

    name, (x_train, y_train, x_test, y_test) = load(args.data)
    model = Model()
    optimizer = nn.optim.AdamW(nn.state.get_parameters(model), lr=1e-3)
    schedule = nn.optim.OneCycleLR(optimizer, max_lr=1e-2, total_steps=args.steps)

    @jit
    def train_step(at: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = model(x_train[at]).sparse_categorical_crossentropy(y_train[at])
        loss.backward()
        optimizer.step()
        return loss

    @jit
    def count_right(at: Tensor) -> Tensor: return (model(x_test[at]).argmax(1) == y_test[at]).sum()

    rng, losses, start = np.random.default_rng(0), [], time.perf_counter()
    with Tensor.train():
        for _ in progress(range(args.steps), f"training on {name}"):
            at = Tensor(rng.integers(0, x_train.shape[0], args.batch, dtype=np.int32))
            losses.append(train_step(at).item())
            schedule.step()
    seconds = time.perf_counter() - start
    test = np.arange(x_test.shape[0], dtype=np.int32).reshape(-1, 500)
    right = sum(count_right(Tensor(at)).item() for at in test)
    print(f"{name}: {right / test.size:.2%} of {test.size} test images right, {args.steps} steps in {seconds:.1f} s")
    save_curve(args.curve, losses)
    print(f"loss curve: {args.curve}")
    print(f"to see what ran: VIZ=1 {os.path.relpath(sys.executable)} {os.path.relpath(__file__)} --steps 20    and open the page it names")
    return right / test.size


if __name__ == "__main__": main()
