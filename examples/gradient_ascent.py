"""What image does each class like best? Writes ascent.png: `python examples/gradient_ascent.py`."""

from saliency import trained

import tinygrad_cnn as tg
from tinygrad_cnn import explain


def main() -> None:
    model = trained()

    # I* = argmax f(I) + R(I), f the score before softmax: ten classes at once, from zeros.
    classes = explain.maximize(model, explain.class_logit(range(10)), start="zeros", shape=(1, 28, 28), seed=0)
    print("scores reached:", [round(v, 1) for v in classes.activation.tolist()])
    print("classes 0 to 9:", classes.picture(columns=5, enlarge=4).save("ascent.png"))

    # From an existing image, by hand: five steps, repeated.
    digit = tg.data.mnist5k(train=False)[:1][0]
    image = digit
    for _ in range(10):
        image = image.detach().requires_grad_()                           # 1. start from an image
        score = model(image)[0, 8]                                        # 2. forward, to the score of class 8
        (slope,) = tg.autograd.grad(score - (image**2).mean(), image)     # 3. backward to the pixels, with R(I)
        image = (image + 0.05 * slope / slope.std()).clamp(0, 1)          # 4. a small step uphill; 5. repeat
    print(f"score of 8: {model(digit)[0, 8].item():.1f} before, {model(image)[0, 8].item():.1f} after ten steps")


if __name__ == "__main__":
    main()
