"""Dense updates: optimizers of all parameters but the tables, in one call."""

from collections.abc import Sequence

from torch import Tensor

from dlrm.ops.reference.updates import bias_corrected


def dense_sgd(
    weights: Sequence[Tensor], grads: Sequence[Tensor], lr: float, *, decay: float = 0.0
) -> None:
    """`w -= lr * (g + decay * w)` for every parameter.

    Args:
        weights: The parameters, of any shapes, changed in place.
        grads: The gradient of each, of its shape; its type or bfloat16.
        lr: Learning rate.
        decay: Weight decay, the factor of the L2 term `decay / 2 * ||w||^2` of the loss.

    """
    for weight, grad in zip(weights, grads, strict=True):
        weight.sub_(_decayed(weight, grad, decay), alpha=lr)


def dense_adagrad(
    weights: Sequence[Tensor],
    states: Sequence[Tensor],
    grads: Sequence[Tensor],
    lr: float,
    eps: float,
    *,
    decay: float = 0.0,
) -> None:
    """`s += g^2; w -= lr * g / (sqrt(s) + eps)` for every parameter, with g + decay * w as g.

    Args:
        weights: As for `dense_sgd`.
        states: The sums of squares of each, of its shape, changed in place.
        grads: As for `dense_sgd`.
        lr: Learning rate.
        eps: Keeps the division finite.
        decay: As for `dense_sgd`.

    """
    for weight, state, grad in zip(weights, states, grads, strict=True):
        g = _decayed(weight, grad, decay)
        state.addcmul_(g, g)
        weight.addcdiv_(g, state.sqrt().add_(eps), value=-lr)


def dense_adam(
    weights: Sequence[Tensor],
    firsts: Sequence[Tensor],
    seconds: Sequence[Tensor],
    grads: Sequence[Tensor],
    lr: float,
    *,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    decay: float = 0.0,
) -> None:
    """Adam for every parameter, as `adam_update` for rows, with g + decay * w as g.

    Args:
        weights: As for `dense_sgd`.
        firsts: The first moment of each, m, of its shape, changed in place.
        seconds: The second moment of each, v, of its shape, changed in place.
        grads: As for `dense_sgd`.
        lr: Learning rate.
        step: Number of this step, from 1.
        beta1: Decay of m.
        beta2: Decay of v.
        eps: Keeps the division finite.
        decay: As for `dense_sgd`.

    """
    rate, eps = bias_corrected(lr, eps, step, beta1, beta2)
    for weight, m, v, grad in zip(weights, firsts, seconds, grads, strict=True):
        g = _decayed(weight, grad, decay)
        m.lerp_(g, 1 - beta1)
        v.lerp_(g.square(), 1 - beta2)
        weight.addcdiv_(m, v.sqrt().add_(eps), value=-rate)


def _decayed(weight: Tensor, grad: Tensor, decay: float) -> Tensor:
    grad = grad.to(weight.dtype)
    return grad.add(weight, alpha=decay) if decay else grad
