"""Train a small CNN on 4,000 real digits and test it on 1,000 others: `python examples/quickstart.py [epochs]`."""

import sys

from tqdm import tqdm

import tinygrad_cnn as tg
from tinygrad_cnn import nn
from tinygrad_cnn.nn import functional as F


class LeNet(nn.Module):
    """Two convolutions and two linear layers, after LeCun et al. 1998."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, padding=2)       # (28 - 5 + 2 * 2)/1 + 1 = 28 wide, (5 * 5 * 1) * 8 + 8 = 208 parameters
        self.conv2 = nn.Conv2d(8, 16, 5)                 # (14 - 5)/1 + 1 = 10 wide, (5 * 5 * 8) * 16 + 16 = 3,216 parameters
        self.fc1 = nn.Linear(16 * 5 * 5, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def main(epochs: int = 2) -> None:
    tg.manual_seed(0)
    train, test = tg.data.mnist5k(train=True), tg.data.mnist5k(train=False)
    model = LeNet()
    print(model)
    optimizer = tg.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(1, epochs + 1):
        model.train()
        for images, labels in tqdm(tg.data.DataLoader(train, batch_size=50, shuffle=True), desc=f"epoch {epoch}", unit="batch"):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        images, labels = test[:]
        with tg.no_grad():
            correct = (model(images).argmax(1) == labels).sum().item()
        print(f"epoch {epoch}: loss {loss:.3f}, {correct} of {len(test)} test digits right")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
