"""Define a primitive of your own, check its gradients to second order, and train with it: `python examples/your_own_op.py`."""

import numpy as np

import tinygrad_cnn as tg


@tg.primitive
def soft_threshold(x, *, width):
    """Shrink towards zero: sign(x) max(|x| - width, 0), elementwise."""
    return np.sign(x) * np.maximum(np.abs(x) - width, 0)


@soft_threshold.vjp(0)
def _(g, out):                                 # a rule names what it needs: here the cotangent and the result
    return tg.where(out != 0, g, 0.0)


def main() -> None:
    tg.manual_seed(0)
    x = tg.randn(3, 5, dtype=tg.float64, requires_grad=True)
    print("gradcheck     ", tg.autograd.gradcheck(lambda t: soft_threshold(t, width=0.3), (x,)))
    print("gradgradcheck ", tg.autograd.gradgradcheck(lambda t: soft_threshold(t, width=0.3) ** 2, (x,)))

    # Sparse coding by gradient descent: find a sparse code whose mixture of patterns explains the signal.
    patterns = tg.randn(20, 16)
    signal = 2 * patterns[3] - patterns[11]
    code = 0.5 * tg.randn(20)
    for step in range(501):
        code.requires_grad_()
        shrunk = soft_threshold(code, width=0.05)
        error = ((shrunk @ patterns - signal) ** 2).mean() + 0.02 * shrunk.abs().sum()
        (slope,) = tg.autograd.grad(error, code)
        code = (code - 0.05 * slope).detach()
        if step % 100 == 0:
            print(f"step {step:3d}  error {error:.4f}  non-zero {int((shrunk != 0).sum())} of 20")
    print("strongest patterns:", sorted(np.argsort(-np.abs(code.numpy()))[:2].tolist()), "(the signal was made of 3 and 11)")


if __name__ == "__main__":
    main()
