"""Train a small ResNet on CIFAR-10 with flipped and shifted images.

    python examples/cifar.py --steps 200        # the data is downloaded (170 MB) if it is not there
    python examples/cifar.py --fake --steps 5   # random images: only to see it run
"""
import argparse

import numpy as np
from plot import save_curve
from progress import progress

from glassgrad import Tensor, nn
from glassgrad import TinyJit as jit
from glassgrad.nn.datasets import cifar

MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)


class Residual:
    def __init__(self, inner: int, outer: int):
        self.a, self.b = nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.norm_a, self.norm_b = nn.BatchNorm(outer), nn.BatchNorm(outer)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.norm_a(self.a(x).max_pool2d()).relu()
        return x + self.norm_b(self.b(x)).relu()


class Model:
    def __init__(self, width: int = 32):
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm(width)
        self.blocks = nn.Sequential([Residual(width, 2 * width), Residual(2 * width, 4 * width), Residual(4 * width, 8 * width)])
        self.head = nn.Linear(8 * width, 10)

    def __call__(self, x: Tensor) -> Tensor:
        x = (x.float() - Tensor(MEAN).reshape(1, 3, 1, 1)) / Tensor(STD).reshape(1, 3, 1, 1)
        return self.head(self.blocks(self.norm(self.stem(x)).relu()).max((2, 3)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--fake", action="store_true", help="random images instead of CIFAR-10")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    if args.fake: data = [Tensor(rng.integers(0, high, shape, dtype=np.uint8)) for high, shape in ((256, (512, 3, 32, 32)), (10, 512)) * 2]
    else: data = cifar()
    x_train, y_train, x_test, y_test = data
    model = Model(args.width)
    optimizer = nn.optim.SGD(nn.state.get_parameters(model), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = nn.optim.OneCycleLR(optimizer, max_lr=0.2, total_steps=args.steps)

    @jit
    def train_step(at: Tensor, flip: Tensor) -> Tensor:
        optimizer.zero_grad()
        images = x_train[at]
        images = flip.reshape(-1, 1, 1, 1).where(images.flip(3), images)
        loss = model(images).sparse_categorical_crossentropy(y_train[at], label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        return loss

    losses = []
    with Tensor.train():
        for _ in progress(range(args.steps), "training"):
            at, flip = rng.integers(0, x_train.shape[0], args.batch, dtype=np.int32), rng.random(args.batch) < 0.5
            losses.append(train_step(Tensor(at), Tensor(flip)).item())
            schedule.step()
    count = jit(lambda at: (model(x_test[at]).argmax(1) == y_test[at]).sum())
    test = np.arange(x_test.shape[0], dtype=np.int32).reshape(-1, 128 if args.fake else 500)
    print(f"{sum(count(Tensor(at)).item() for at in test) / test.size:.2%} of {test.size} test images right")
    save_curve("cifar_loss.png", losses)


if __name__ == "__main__": main()
