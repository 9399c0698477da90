"""Which pixels does an answer depend on? Trains for one epoch, writes saliency.png: `python examples/saliency.py`."""

import numpy as np

import tinygrad_cnn as tg
from tinygrad_cnn import explain, nn
from tinygrad_cnn.nn import functional as F


def trained() -> nn.Module:
    tg.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 7 * 7, 10),
    )
    optimizer = tg.optim.Adam(model.parameters(), lr=3e-3)
    for images, labels in tg.data.DataLoader(tg.data.mnist5k(train=True), batch_size=50, shuffle=True):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def main() -> None:
    model = trained()
    images, labels = tg.data.mnist5k(train=False)[:6]
    gradient = explain.saliency(model, images, labels.tolist())          # one class per image: its own
    saliency = explain.saliency_map(gradient)                             # the largest absolute gradient over the channels

    # The same by hand: mark the pixels as requiring a gradient, and run backward from the scores (before softmax).
    pixels = images.clone().requires_grad_()
    model(pixels).gather(1, labels.reshape(-1, 1)).sum().backward()
    print("largest difference to the gradient by hand:", (gradient - pixels.grad).abs().max().item())

    maps = saliency.numpy().reshape(6, 1, 28, 28)
    maps = maps / maps.max(axis=(1, 2, 3), keepdims=True)                 # each on its own scale
    picture = explain.grid(np.concatenate([images.numpy(), maps]), columns=6, enlarge=4)
    print("digits above, what their scores depend on below:", picture.save("saliency.png"))


if __name__ == "__main__":
    main()
