"""The base of all optimizers: parameter groups, state from the start, one step over both kinds."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from inspect import unwrap
from typing import Any, ClassVar, Literal, NotRequired, TypedDict

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from dlrm.errors import ConfigError
from dlrm.ops.bag_gradient import BagGradient
from dlrm.ops.memory import in_huge_pages
from dlrm.ops.reference.updates import of_lookups
from dlrm.ops.storage import lower_half, optimizer_state
from dlrm.ops.table_gradient import Gradients, TableGradient
from dlrm.optim.declaration import Declaration

Group = dict[str, Any]
"""A parameter group with its options."""

Groups = Iterable[Group] | Iterable[nn.Parameter]
"""What an optimizer takes: parameter groups, or parameters alone."""

RowScope = Literal["touched", "all"]
"""Rows of an embedding weight that take part in a step: those that were looked up, or every one, as
with a dense gradient, whose cost then grows with the table instead of the batch."""


class Stored(TypedDict):
    """How a table is stored and looked up: the last arguments of `SparseOptimizer.update_table`."""

    lower: Tensor | None
    seed: int
    bags: NotRequired[Tensor | None]
    """As in `dlrm.ops.reference.updates.UpdateOptions`, where `Declaration.takes_bags`."""
    scale: NotRequired[Tensor | None]


_FIXED = ("params", "sparse", "storage", "mean_squares")


class SparseOptimizer(Optimizer, ABC):
    """An optimizer of dense parameters and of the rows of embedding tables.

    A parameter group is a dictionary, as `dlrm.nn.embedding.parameter_groups` returns them:

        params         the parameters
        sparse         whether they are embedding tables, which get sparse gradients
        storage        of tables, how rows are stored: a `dlrm.ops.storage.Storage`
        mean_squares   of tables that have some columns only of longer rows, what asks the other
                       columns' owners for the mean squares over all of them, a `MeanSquares`

    Parameters alone, or a group without `sparse`, are dense or tables as their first gradients turn
    out to be, only then get state, and round bfloat16 to the nearest: right for a few parameters in
    a test. All other state exists from construction on, so that a checkpoint or a plan never
    guesses what there will be.

    A subclass is one file: what it keeps and costs (`declaration`), fresh state of a parameter of
    either kind, and the update of either kind. Its first arguments are the groups and `lr`; others
    are keywords, of which `OptimConfig` sets those that the signature names.

    Args:
        params: Parameter groups, or parameters.
        defaults: The options of a group, `lr` among them.

    """

    declaration: ClassVar[Declaration]
    """What the optimizer keeps and costs"""
    generator: torch.Generator | None = None
    """Random numbers of rounding; None for torch's own."""

    # Without torch's wrappers, whose first call imports its compiler: a second of each start.
    state_dict = unwrap(Optimizer.state_dict)

    def __init__(self, params: Groups, defaults: dict[str, Any]):
        # A process may have no part of the model's tables, and no other parameters.
        groups: list[Any] = list(params) or [{"params": []}]
        super().__init__(
            groups, {**defaults, "sparse": None, "storage": "fp32", "mean_squares": None}
        )

    @abstractmethod
    def dense_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the fresh state of a dense parameter; see `zeros`."""

    @abstractmethod
    def table_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the fresh state of an embedding weight (R, D), in tensors (R, ...)."""

    @abstractmethod
    def update_dense(self, group: Group, weights: list[Tensor], grads: list[Tensor]) -> None:
        """Update dense parameters.

        Args:
            group: Theirs, with the options.
            weights: The parameters that have a gradient, changed in place as is their state.
            grads: The gradient of each, of its shape; its type or bfloat16.

        """

    @abstractmethod
    def update_table(
        self,
        group: Group,
        weight: Tensor,
        rows: Tensor,
        grad: Tensor,
        *,
        lower: Tensor | None,
        seed: int,
    ) -> None:
        """Update rows of an embedding weight; `dlrm.ops.reference.updates` has what is needed.

        Args:
            group: Its group, with the options.
            weight: (R, D), changed in place, as is its state.
            rows: (L,) int64, with duplicates.
            grad: (L, D); the gradient of a row is the sum over its duplicates.
            lower: (R, D) int16, changed in place: the lower halves of split rows, or None.
            seed: Seed of stochastic rounding; 0 rounds to the nearest.

        Where the class declares that it `takes_bags`, there are also `bags` and `scale` where grad
        is (G, D), of bags; see `Stored`.

        """

    def group_state(self) -> dict[str, Tensor]:
        """Return the fresh state of a group as a whole, which its first parameter keeps."""
        return {}

    def start_step(self, group: Group) -> None:
        """Change what belongs to a group as a whole, once before its parameters are updated."""

    def add_param_group(self, param_group: Group) -> None:
        """Add a parameter group, and make the state of its parameters."""
        unwrap(Optimizer.add_param_group)(self, param_group)
        group = self.param_groups[-1]
        for weight in group["params"][:1]:
            self.state[weight].update(self.group_state())
        if group["sparse"] is not None:
            for weight in group["params"]:
                self._start(group, weight, table=group["sparse"])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Let go of all gradients, or set them to zero; as torch's, which small batches notice."""
        if not set_to_none:
            unwrap(Optimizer.zero_grad)(self, set_to_none=False)
            return
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad = None

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the gradients; parameters that have none stay as they are.

        A closure computes the loss and the gradients, where they are not there yet.

        Returns:
            The loss that the closure returned.

        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.apply(
            {
                weight: gradient_of(group, weight, weight.grad)
                for group in self.param_groups
                for weight in group["params"]
                if weight.grad is not None
            }
        )
        return loss

    @property
    def watched(self) -> bool:
        """Whether somebody is told of steps, or has put another function in the place of `step`."""
        return bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or "step" in self.__dict__
            # Torch wraps it once for each class.
            or getattr(type(self).step, "__wrapped__", None) is not SparseOptimizer.step
        )

    @torch.no_grad()
    def apply(self, gradients: Gradients) -> None:
        """Apply gradients as `step` does those that parameters have, and tell nobody of it."""
        for group in self.param_groups:
            if not group["params"]:
                continue
            self._start_unknown(group, gradients)
            self.start_step(group)
            weights: list[Tensor] = []
            grads: list[Tensor] = []
            tables: list[tuple[Tensor, TableGradient]] = []
            for weight in group["params"]:
                grad = gradients.get(weight)
                if isinstance(grad, TableGradient):
                    tables.append((weight, grad))
                elif grad is not None:
                    weights.append(weight)
                    grads.append(grad)
            if weights:
                self.update_dense(group, weights, grads)
            for weight, table in tables:
                self._update_table(group, weight, table)

    def _update_table(self, group: Group, weight: Tensor, table: TableGradient) -> None:
        rows, grad, bags, scale = table
        lower, seed = optimizer_state(weight, self.state[weight], group["storage"], self.generator)
        stored: dict[str, Any] = {"lower": lower, "seed": seed}
        if bags is not None and self.declaration.takes_bags:
            stored |= {"bags": bags, "scale": scale}
        else:
            grad = of_lookups(grad, bags, scale)
        self.update_table(group, weight, rows, grad, **stored)

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy what `state_dict` returned, of an optimizer over such parameters, into the state.

        Where a group says how parameters are stored, and what kind they are, it stays.

        Raises:
            ConfigError: It is of other parameters or of another optimizer; says which.

        """
        saved_groups, saved_state = state_dict["param_groups"], state_dict["state"]
        sizes = [len(group["params"]) for group in self.param_groups]
        if sizes != (saved := [len(group["params"]) for group in saved_groups]):
            raise ConfigError(f"state is of groups of {saved} parameters, these are {sizes}")
        for group, saved_group in zip(self.param_groups, saved_groups, strict=True):
            group.update({key: saved_group[key] for key in saved_group if key not in _FIXED})
            for weight, index in zip(group["params"], saved_group["params"], strict=True):
                self._load(group, weight, saved_state.get(index, {}), index)

    def _load(self, group: Group, weight: Tensor, saved: dict[str, Tensor], index: int) -> None:
        state = self.state[weight]
        if group["sparse"] is None:
            state.update({key: saved[key].clone() for key in saved.keys() - state.keys()})
        if shapes(state) != shapes(saved):
            raise ConfigError(
                f"state of parameter {index} is {shapes(saved)}, expected {shapes(state)}"
            )
        for key, tensor in state.items():
            tensor.copy_(saved[key])

    def _start(self, group: Group, weight: Tensor, *, table: bool) -> None:
        state = self.state[weight]
        state.update(self.table_state(weight) if table else self.dense_state(weight))
        if table and group["storage"] == "split" and weight.dtype == torch.bfloat16:
            state["lower"] = lower_half(weight)

    def _start_unknown(self, group: Group, gradients: Gradients) -> None:
        """Make the state of parameters whose first gradient says what they are."""
        if group["sparse"] is not None:
            return
        shared = self.group_state().keys()
        for weight in group["params"]:
            if weight in gradients and self.state[weight].keys() <= shared:
                self._start(group, weight, table=isinstance(gradients[weight], TableGradient))


def zeros(weight: Tensor, shape: Iterable[int] | None = None) -> Tensor:
    """Return fresh state: zeros in float32, or float64 of a float64 parameter, on its device."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    size = weight.shape if shape is None else tuple(shape)
    return in_huge_pages(torch.empty(size, dtype=dtype, device=weight.device)).zero_()


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a state, in the order of their names."""
    return {key: tuple(state[key].shape) for key in sorted(state)}


def gradient_of(group: Group, weight: Tensor, grad: Tensor) -> Tensor | TableGradient:
    """Return a gradient that autograd left, of a parameter of a group, as optimizers apply it.

    Nothing is copied. A row comes as often as it was looked up, and of a dense gradient of a table
    every row once.

    Raises:
        ConfigError: A parameter of a dense group has a sparse gradient.

    """
    if grad.is_sparse:
        if group["sparse"] is False:
            raise ConfigError(
                f"a dense parameter {tuple(weight.shape)} has a sparse gradient: put it into a "
                'parameter group with "sparse": True, see dlrm.nn.embedding.parameter_groups'
            )
        if isinstance(grad, BagGradient) and grad.bags.sparse is None:
            bags = grad.bags
            return TableGradient(bags.rows, bags.grad, bags.bags, bags.scale)
        return TableGradient(grad._indices()[0], grad._values())
    if group["sparse"]:
        return TableGradient(torch.arange(weight.shape[0], device=weight.device), grad)
    return grad


def l2_rows(group: Group) -> bool:
    """Return whether L2 takes every row: without L2 a row without gradient stays as it is anyway.

    Not so in Adam, whose moments move rows long after their last gradient.
    """
    return group["embedding_rows"] == "all" and group["embedding_l2"] != 0
