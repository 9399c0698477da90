"""An autodiff engine from scratch with a CNN layer set: learn, train, gradient-check, draw and see into CNNs on a CPU.

    import tinygrad_cnn as tg
    x = tg.randn(8, 3, 32, 32)
    y = tg.nn.Conv2d(3, 16, 3, padding=1)(x)
    y.square().mean().backward()

Names, arguments and defaults are PyTorch's. Importing compiles nothing and loads neither numba nor matplotlib nor Pillow.
"""

import numpy as _np

from . import autograd, backends, data, draw, explain, memory, nn, optim
from .backends import get_num_threads, set_num_threads
from .grad_mode import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .ops.arguments import guard as _guard
from .ops.elementwise import (
                              abs,
                              acos,
                              add,
                              asin,
                              atan,
                              atan2,
                              bitwise_and,
                              bitwise_not,
                              bitwise_or,
                              bitwise_xor,
                              ceil,
                              clamp,
                              clip,
                              clone,
                              cos,
                              cosh,
                              div,
                              eq,
                              erf,
                              exp,
                              expm1,
                              floor,
                              floor_divide,
                              ge,
                              gt,
                              isfinite,
                              isinf,
                              isnan,
                              le,
                              log,
                              log1p,
                              log2,
                              log10,
                              logical_and,
                              logical_not,
                              logical_or,
                              logical_xor,
                              lt,
                              maximum,
                              minimum,
                              mul,
                              ne,
                              neg,
                              pow,
                              reciprocal,
                              relu,
                              remainder,
                              round,
                              rsqrt,
                              sigmoid,
                              sign,
                              sin,
                              sinh,
                              sqrt,
                              square,
                              sub,
                              tan,
                              tanh,
                              trunc,
                              where,
)
from .ops.linalg import bmm, dot, einsum, matmul, mm, outer
from .ops.movement import (
                              broadcast_to,
                              cat,
                              chunk,
                              expand,
                              flatten,
                              flip,
                              gather,
                              index_select,
                              masked_fill,
                              masked_select,
                              movedim,
                              permute,
                              reshape,
                              roll,
                              scatter_add,
                              split,
                              squeeze,
                              stack,
                              tile,
                              transpose,
                              tril,
                              triu,
                              unbind,
                              unflatten,
                              unsqueeze,
)
from .ops.reduce import (
                              all,
                              amax,
                              amin,
                              any,
                              argmax,
                              argmin,
                              cumsum,
                              log_softmax,
                              logsumexp,
                              max,
                              mean,
                              min,
                              norm,
                              prod,
                              softmax,
                              std,
                              sum,
                              var,
)
from .ops.sorting import argsort, sort, topk
from .primitive import Primitive, primitive
from .random import get_rng_state, manual_seed, set_rng_state
from .tensor import (
                              Tensor,
                              arange,
                              as_tensor,
                              empty,
                              empty_like,
                              eye,
                              from_numpy,
                              full,
                              full_like,
                              is_tensor,
                              linspace,
                              ones,
                              ones_like,
                              rand,
                              rand_like,
                              randint,
                              randn,
                              randn_like,
                              randperm,
                              tensor,
                              zeros,
                              zeros_like,
)

_guard(globals())

float32, float64 = _np.dtype("float32"), _np.dtype("float64")
int8, int16, int32, int64, uint8 = (_np.dtype(name) for name in ("int8", "int16", "int32", "int64", "uint8"))
float, double, int, long, short, bool = float32, float64, int32, int64, int16, _np.dtype("bool")
dtype = _np.dtype

__version__ = "0.1.0"
