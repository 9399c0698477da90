"""Networks as their authors publish them, in PyTorch's idioms, written once for both libraries.

`python -m tests.public_networks NAME SEED [torch]` trains one for two steps and runs it in evaluation, in float64, and prints a sum of all
that came out; with `torch` it also compares everything with PyTorch.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np


def networks(lib: Any) -> dict[str, Any]:
    """The models' classes, and the images they take, for `torch` or for the package."""
    nn, F = lib.nn, lib.nn.functional

    class DPNBlock(nn.Module):
        """Dual path: 3x3 convolutions in 32 groups, of 3 to 24 channels each."""

        def __init__(self, last_planes, in_planes, out_planes, dense_depth, stride, first):
            super().__init__()
            self.out_planes, self.dense_depth = out_planes, dense_depth
            self.conv1 = nn.Conv2d(last_planes, in_planes, kernel_size=1, bias=False)
            self.bn1 = nn.BatchNorm2d(in_planes)
            self.conv2 = nn.Conv2d(in_planes, in_planes, kernel_size=3, stride=stride, padding=1, groups=32, bias=False)
            self.bn2 = nn.BatchNorm2d(in_planes)
            self.conv3 = nn.Conv2d(in_planes, out_planes + dense_depth, kernel_size=1, bias=False)
            self.bn3 = nn.BatchNorm2d(out_planes + dense_depth)
            self.shortcut = nn.Sequential()
            if first:
                self.shortcut = nn.Sequential(nn.Conv2d(last_planes, out_planes + dense_depth, kernel_size=1, stride=stride, bias=False),
                                              nn.BatchNorm2d(out_planes + dense_depth))

        def forward(self, x):
            out = F.relu(self.bn1(self.conv1(x)))
            out = F.relu(self.bn2(self.conv2(out)))
            out = self.bn3(self.conv3(out))
            x = self.shortcut(x)
            d = self.out_planes
            out = lib.cat([x[:, :d, :, :] + out[:, :d, :, :], x[:, d:, :, :], out[:, d:, :, :]], 1)
            return F.relu(out)

    class DPN26(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, kernel_size=3, stride=1, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            self.last_planes = 16
            self.layer1 = self.make(96, 32, 1, 8, 1)
            self.layer2 = self.make(192, 48, 2, 12, 2)
            self.layer3 = self.make(768, 64, 1, 16, 2)
            self.linear = nn.Linear(64 + 2 * 16, 10)

        def make(self, in_planes, out_planes, blocks, dense_depth, stride):
            layers = []
            for i in range(blocks):
                layers.append(DPNBlock(self.last_planes, in_planes, out_planes, dense_depth, stride if i == 0 else 1, i == 0))
                self.last_planes = out_planes + (i + 2) * dense_depth
            return nn.Sequential(*layers)

        def forward(self, x):
            out = F.relu(self.bn1(self.conv1(x)))
            out = self.layer3(self.layer2(self.layer1(out)))
            out = F.avg_pool2d(out, 2)
            out = out.view(out.size(0), -1)
            return self.linear(out)

    class ShuffleBlock(nn.Module):
        def __init__(self, groups):
            super().__init__()
            self.groups = groups

        def forward(self, x):
            n, c, h, w = x.size() if lib.__name__ == "torch" else x.shape
            g = self.groups
            return x.view(n, g, c // g, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w)

    class ShuffleUnit(nn.Module):
        """ShuffleNet V2: half of the channels goes around, or both branches come down."""

        def __init__(self, inp, oup, stride):
            super().__init__()
            self.stride, half = stride, oup // 2
            if stride > 1:
                self.branch1 = nn.Sequential(nn.Conv2d(inp, inp, 3, stride, 1, groups=inp, bias=False), nn.BatchNorm2d(inp),
                                             nn.Conv2d(inp, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True))
            self.branch2 = nn.Sequential(nn.Conv2d(inp if stride > 1 else half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True),
                                         nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False), nn.BatchNorm2d(half),
                                         nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True))

        def forward(self, x):
            if self.stride == 1:
                x1, x2 = x.chunk(2, dim=1)
                out = lib.cat((x1, self.branch2(x2)), dim=1)
            else:
                out = lib.cat((self.branch1(x), self.branch2(x)), dim=1)
            b, c, h, w = out.shape
            out = out.view(b, 2, c // 2, h, w)
            out = lib.transpose(out, 1, 2).contiguous()
            return out.view(b, -1, h, w)

    class ShuffleNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True))
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
            self.stage2 = nn.Sequential(ShuffleUnit(24, 44, 2), ShuffleUnit(44, 44, 1), ShuffleUnit(44, 44, 1))
            self.stage3 = nn.Sequential(ShuffleUnit(44, 90, 2), ShuffleUnit(90, 90, 1))
            self.mix = nn.Sequential(nn.Conv2d(90, 90, 1, groups=3, bias=False), ShuffleBlock(3), nn.Conv2d(90, 60, 3, padding=1, groups=30))
            self.fc = nn.Linear(60, 10)

        def forward(self, x):
            x = self.stage3(self.stage2(self.maxpool(self.conv1(x))))
            x = self.mix(x)
            x = x.mean([2, 3])
            return self.fc(x)

    class Fire(nn.Module):
        def __init__(self, inplanes, squeeze_planes, expand_planes):
            super().__init__()
            self.squeeze = nn.Conv2d(inplanes, squeeze_planes, kernel_size=1)
            self.squeeze_activation = nn.ReLU(inplace=True)
            self.expand1x1 = nn.Conv2d(squeeze_planes, expand_planes, kernel_size=1)
            self.expand1x1_activation = nn.ReLU(inplace=True)
            self.expand3x3 = nn.Conv2d(squeeze_planes, expand_planes, kernel_size=3, padding=1)
            self.expand3x3_activation = nn.ReLU(inplace=True)

        def forward(self, x):
            x = self.squeeze_activation(self.squeeze(x))
            return lib.cat([self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))], 1)

    class SqueezeNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(3, 19, kernel_size=3, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True), Fire(19, 7, 17), Fire(34, 7, 17),
                nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True), Fire(34, 9, 21))
            final_conv = nn.Conv2d(42, 10, kernel_size=1)
            self.classifier = nn.Sequential(nn.Dropout(p=0.0), final_conv, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((1, 1)))
            for m in self.modules():
                if isinstance(m, nn.Conv2d):
                    if m is final_conv:
                        nn.init.normal_(m.weight, mean=0.0, std=0.01)
                    else:
                        nn.init.kaiming_uniform_(m.weight)
                    if m.bias is not None:
                        nn.init.constant_(m.bias, 0)

        def forward(self, x):
            x = self.classifier(self.features(x))
            return lib.flatten(x, 1)

    class SeparableConv2d(nn.Module):
        def __init__(self, in_channels, out_channels, kernel_size=1, stride=1, padding=0, dilation=1, bias=False):
            super().__init__()
            self.conv1 = nn.Conv2d(in_channels, in_channels, kernel_size, stride, padding, dilation, groups=in_channels, bias=bias)
            self.pointwise = nn.Conv2d(in_channels, out_channels, 1, 1, 0, 1, 1, bias=bias)

        def forward(self, x):
            return self.pointwise(self.conv1(x))

    class XceptionBlock(nn.Module):
        """The skip connection takes what the first ReLU, in place, has written over."""

        def __init__(self, in_filters, out_filters, reps, strides=1, start_with_relu=True):
            super().__init__()
            self.skip = nn.Conv2d(in_filters, out_filters, 1, stride=strides, bias=False) if out_filters != in_filters or strides != 1 else None
            self.skipbn = nn.BatchNorm2d(out_filters) if self.skip is not None else None
            rep, filters = [], in_filters
            for i in range(reps):
                rep.append(nn.ReLU(inplace=True))
                rep.append(SeparableConv2d(filters, out_filters if i == 0 else filters, 3, stride=1, padding=1, bias=False))
                filters = out_filters
                rep.append(nn.BatchNorm2d(filters))
            if not start_with_relu:
                rep = rep[1:]
            else:
                rep[0] = nn.ReLU(inplace=True)
            if strides != 1:
                rep.append(nn.MaxPool2d(3, strides, 1))
            self.rep = nn.Sequential(*rep)

        def forward(self, inp):
            x = self.rep(inp)
            skip = self.skipbn(self.skip(inp)) if self.skip is not None else inp
            x += skip
            return x

    class Xception(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1, self.relu1 = nn.Conv2d(3, 13, 3, 2, 0, bias=False), nn.BatchNorm2d(13), nn.ReLU(inplace=True)
            self.conv2, self.bn2, self.relu2 = nn.Conv2d(13, 22, 3, bias=False), nn.BatchNorm2d(22), nn.ReLU(inplace=True)
            self.block1 = XceptionBlock(22, 40, 2, 2, start_with_relu=False)
            self.block2 = XceptionBlock(40, 40, 2, 1)
            self.block3 = XceptionBlock(40, 56, 2, 2)
            self.conv3, self.bn3 = SeparableConv2d(56, 72, 3, 1, 1), nn.BatchNorm2d(72)
            self.fc = nn.Linear(72, 10)

        def forward(self, x):
            x = self.relu1(self.bn1(self.conv1(x)))
            x = self.relu2(self.bn2(self.conv2(x)))
            kept = self.block1(x)
            x = self.block3(self.block2(kept))
            x = self.bn3(self.conv3(x))
            x = F.relu(x, inplace=True)
            x = F.adaptive_avg_pool2d(x, (1, 1))
            x = x.view(x.size(0), -1)
            return self.fc(x) + kept.mean((2, 3))[:, :10]

    class Bottleneck(nn.Module):
        def __init__(self, in_planes, growth_rate):
            super().__init__()
            self.bn1 = nn.BatchNorm2d(in_planes)
            self.conv1 = nn.Conv2d(in_planes, 4 * growth_rate, kernel_size=1, bias=False)
            self.bn2 = nn.BatchNorm2d(4 * growth_rate)
            self.conv2 = nn.Conv2d(4 * growth_rate, growth_rate, kernel_size=3, padding=1, bias=False)

        def forward(self, x):
            out = self.conv1(F.relu(self.bn1(x)))
            out = self.conv2(F.relu(self.bn2(out)))
            return lib.cat([out, x], 1)

    class DenseNet(nn.Module):
        def __init__(self, growth=6, blocks=(2, 3, 2)):
            super().__init__()
            planes = 2 * growth
            self.features = nn.Sequential()
            self.features.add_module("conv0", nn.Conv2d(3, planes, kernel_size=3, padding=1, bias=False))
            for i, count in enumerate(blocks):
                for j in range(count):
                    self.features.add_module(f"dense{i}_{j}", Bottleneck(planes, growth))
                    planes += growth
                if i < len(blocks) - 1:
                    self.features.add_module(f"transition{i}", nn.Sequential(
                        nn.BatchNorm2d(planes), nn.ReLU(inplace=True), nn.Conv2d(planes, planes // 2, kernel_size=1, bias=False), nn.AvgPool2d(kernel_size=2, stride=2)))
                    planes //= 2
            self.features.add_module("norm5", nn.BatchNorm2d(planes))
            self.classifier = nn.Linear(planes, 10)

        def forward(self, x):
            features = self.features(x)
            out = F.relu(features, inplace=True)
            out = F.adaptive_avg_pool2d(out, (1, 1))
            out = lib.flatten(out, 1)
            return self.classifier(out)

    return {"dpn": (DPN26, (2, 3, 8, 8)), "shufflenet": (ShuffleNet, (2, 3, 32, 32)), "squeezenet": (SqueezeNet, (2, 3, 33, 33)), "xception": (Xception, (2, 3, 35, 35)),
            "densenet": (DenseNet, (2, 3, 16, 16))}


NAMES = ("dpn", "shufflenet", "squeezenet", "xception", "densenet")


def train(lib: Any, name: str, seed: int, state: dict[str, np.ndarray] | None) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The state at the beginning, and all that comes out of two training steps and of evaluation."""
    random = np.random.default_rng(seed)
    make, shape = networks(lib)[name]
    model = make().double()
    if state is not None:
        model.load_state_dict({key: lib.tensor(value) for key, value in state.items()})
    start = {key: np.array(value.tolist()) for key, value in model.state_dict().items()}
    optimizer = lib.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    found = {}
    for step in range(2):
        images = lib.tensor(random.uniform(-1, 1, shape), requires_grad=True)
        labels = lib.tensor(random.integers(0, 10, shape[0]))
        optimizer.zero_grad()
        scores = model(images)
        lib.nn.functional.cross_entropy(scores, labels).backward()
        found[f"scores {step}"], found[f"image gradient {step}"] = (np.array(t.tolist()) for t in (scores, images.grad))
        found.update({f"gradient {step} of {key}": np.array(p.grad.tolist()) for key, p in model.named_parameters()})
        optimizer.step()
    model.eval()
    with lib.no_grad():
        for _ in range(3):                     # from the second time on weights are kept as kernels read them
            found["evaluation"] = np.array(model(lib.tensor(random.uniform(-1, 1, shape))).tolist())
    return start, found


def main(name: str, seed: str, *with_torch: str) -> None:
    """See the module."""
    import tinygrad_cnn as tg

    tg.manual_seed(int(seed))
    state, found = train(tg, name, int(seed), None)
    if with_torch:
        import torch

        warnings.simplefilter("ignore")
        _, expected = train(torch, name, int(seed), state)
        assert found.keys() == expected.keys()
        for key, right in expected.items():
            error = np.abs(found[key] - right).max() / max(1e-3, np.abs(right).max())
            assert error < 1e-9, f"{name}: {key} is off by {error:.2g} of the largest"
    print(sum(float(np.abs(value).sum()) for value in found.values()))


if __name__ == "__main__":
    main(*sys.argv[1:])
