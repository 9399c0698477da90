"""The measured networks, written once for both engines: `tg` is torch or tinygrad_cnn."""

from collections.abc import Callable
from typing import Any

Network = Callable[[Any], Any]


def small(tg: Any) -> Any:
    """The CNN of the first gradient: two convolutions with batch norm, 28x28 grey."""
    nn = tg.nn
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 7 * 7, 10),
    )


def lenet(tg: Any) -> Any:
    """LeNet-5's sizes with ReLU and max pooling, 28x28 grey (LeCun et al. 1998)."""
    nn = tg.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 5 * 5, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )


def vgg(tg: Any) -> Any:
    """Eight 3x3 convolutions with batch norm, 64 to 512 channels, 32x32 (after Simonyan & Zisserman 2015)."""
    nn, layers, channels = tg.nn, [], 3
    for width in (64, 128, 256, 512):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 2 * 2, 10))


def resnet18(tg: Any) -> Any:
    """ResNet-18 with a 3x3 first layer and no first pooling, 32x32 (He et al. 2016)."""
    nn = tg.nn

    class Block(tg.nn.Module):
        def __init__(self, channels: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU()
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            projection = [nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)]
            self.downsample = nn.Sequential(*(projection if stride != 1 or channels != width else []))

        def forward(self, x: Any) -> Any:
            y = self.relu(self.bn1(self.conv1(x)))
            return self.relu(self.bn2(self.conv2(y)) + self.downsample(x))

    layers, channels = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()], 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(channels, width, stride), Block(width, width, 1)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def mobilenet(tg: Any) -> Any:
    """Seven depthwise separable blocks, 32 to 512 channels, 96x96 (after Howard et al. 2017)."""
    nn = tg.nn
    layers, channels = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()], 32
    for width, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        layers += [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
                   nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def densenet(tg: Any) -> Any:
    """Three dense blocks of four layers, growth 32, halved by the transitions between, 32x32 (after Huang et al. 2017, DenseNet-BC)."""
    nn, growth = tg.nn, 32

    class Layer(tg.nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.new = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 4 * growth, 1, bias=False),
                                     nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False))

        def forward(self, x: Any) -> Any:
            return tg.cat([x, self.new(x)], 1)

    channels = 2 * growth
    layers = [nn.Conv2d(3, channels, 3, 1, 1, bias=False)]
    for block in range(3):
        if block:
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
        for _ in range(4):
            layers.append(Layer(channels))
            channels += growth
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


IMAGES: dict[Network, tuple[int, int, int]] = {
    small: (1, 28, 28), lenet: (1, 28, 28), vgg: (3, 32, 32), resnet18: (3, 32, 32), mobilenet: (3, 96, 96), densenet: (3, 32, 32),
}
