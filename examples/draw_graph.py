"""Draw a model's layers and the recorded graph of its loss; writes model.svg and graph.svg: `python examples/draw_graph.py`."""

import tinygrad_cnn as tg
from tinygrad_cnn import draw, nn


class Residual(nn.Module):
    """Two convolutions with a way around them, after He et al. 2016."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x):
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)) + x)


def main() -> None:
    tg.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Residual(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    x = tg.randn(4, 3, 16, 16)
    print("layers, shapes, parameters:", draw.save(draw.model(model, x), "model.svg"))

    loss = nn.functional.cross_entropy(model(x), tg.tensor([1, 2, 3, 4]))
    graph = draw.graph(loss, params=dict(model.named_parameters()))
    print("every op, and what it keeps for backward:", draw.save(graph, "graph.svg"))

    # A second derivative is a graph like any other.
    w = tg.tensor(2.0, requires_grad=True)
    (slope,) = tg.autograd.grad(w.exp() * w, w, create_graph=True)
    print("the graph of a gradient:", draw.save(draw.graph(slope, params={"w": w}), "gradient.svg"))


if __name__ == "__main__":
    main()
