"""Models that the tests look into, and a fingerprint that changes when anything about a model does."""

import numpy as np

import tinygrad_cnn as tg
from tinygrad_cnn import nn


class Digits(nn.Module):
    """Two convolutions with batch norm, one ReLU module used twice, and a functional one."""

    def __init__(self, channels=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.relu, self.pool, self.drop = nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5)
        self.hidden, self.fc = nn.Linear(6 * 2 * 2, 8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.pool(self.relu(self.bn1(self.conv1(x))))
        x = self.pool(self.relu(self.bn2(self.conv2(x))))
        x = nn.functional.relu(self.hidden(self.drop(x.flatten(1))))
        return self.fc(x)


def digits(channels=1):
    """A float64 `Digits` with all there is to disturb: batch statistics, gradients, mixed modes, frozen weights, hooks."""
    model = Digits(channels).double()
    for _ in range(3):
        model(tg.randn(6, channels, 8, 8, dtype=tg.float64))
    model(tg.randn(6, channels, 8, 8, dtype=tg.float64)).square().sum().backward()
    model.bn1.eval()
    model.conv2.requires_grad_(False)
    model.fc.bias.grad = None
    model.conv1.register_forward_hook(lambda module, args, output: None)
    model.fc.register_full_backward_hook(lambda module, grad_input, grad_output: None)
    model.notes = ["mine"]
    return model


def fingerprint(model):
    """Everything of a model: identities, values, versions, gradients, flags, modes, hooks, attributes."""
    found = []
    for name, module in model.named_modules():
        found.append((name, id(module), module.training, list(module.__dict__)))
        for key, value in module.__dict__.items():
            found.append((key, id(value), list(value) if isinstance(value, (dict, list)) else None))
            if isinstance(value, dict):
                found.append([id(v) for v in value.values()])
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        grad = tensor.grad
        found.append((name, id(tensor), np.array(tensor).tobytes(), tensor.requires_grad, id(tensor._edge), tensor._storage.version,
                      tensor._data.ctypes.data, id(grad), None if grad is None else np.array(grad).tobytes()))
    return found
