"""ResNet-18 and ResNet-50 (He et al. 2015), with torchvision's names, so its checkpoints load.

    python examples/resnet.py --depth 18 --size 64                      # time of a forward pass with random weights
    python examples/resnet.py --depth 50 --weights resnet50.pth         # a torchvision checkpoint, if you have one
"""
import argparse
import time

from glassgrad import Tensor, nn
from glassgrad import TinyJit as jit


class Block:
    """Convolutions and a shortcut: two of 3x3, or 1x1, 3x3, 1x1 with four times the channels (`wide`)."""
    def __init__(self, inner: int, outer: int, stride: int, wide: bool):
        self.convolutions = 3 if wide else 2
        shapes = (
            [(inner, outer, 1, 1), (outer, outer, 3, stride), (outer, 4 * outer, 1, 1)]
            if wide
            else [(inner, outer, 3, stride), (outer, outer, 3, 1)]
        )
        for i, (a, b, k, s) in enumerate(shapes, 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, k, s, k // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm(b))
        last = shapes[-1][1]
        self.downsample = [nn.Conv2d(inner, last, 1, stride, bias=False), nn.BatchNorm(last)] if stride != 1 or inner != last else []

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.convolutions + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.convolutions: y = y.relu()
        return (y + x.sequential(self.downsample)).relu()


DEPTHS = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True), 101: ((3, 4, 23, 3), True)}


class ResNet:
    def __init__(self, depth: int = 18, classes: int = 1000):
        counts, wide = DEPTHS[depth]
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm(64)
        inner = 64
        for i, count in enumerate(counts):
            outer, blocks = 64 << i, []
            for j in range(count):
                blocks.append(Block(inner, outer, 2 if i and not j else 1, wide))
                inner = outer * (4 if wide else 1)
            setattr(self, f"layer{i + 1}", blocks)
        self.fc = nn.Linear(inner, classes)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu().max_pool2d((3, 3), stride=2, padding=1)
        for i in range(1, 5): x = x.sequential(getattr(self, f"layer{i}"))
        return self.fc(x.mean((2, 3)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, choices=list(DEPTHS), default=18)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--weights", help="a .pth or .safetensors file")
    args = parser.parse_args()
    model = ResNet(args.depth)
    if args.weights:
        load = nn.state.safe_load if args.weights.endswith(".safetensors") else nn.state.torch_load
        nn.state.load_state_dict(model, load(args.weights))
    forward = jit(lambda x: model(x).argmax(1))
    x = Tensor.rand(args.batch, 3, args.size, args.size).realize()
    for i in range(4):
        start = time.perf_counter()
        found = forward(x).numpy()
        print(f"run {i}: {(time.perf_counter() - start) * 1e3:8.1f} ms, class {found[0]}")


if __name__ == "__main__": main()
