"""The original project's training step, run from a clone that the user has.

Nothing of the original is part of this project: its module is imported from the clone, and its own
model, wrappers, optimizers and schedule are called in the order of its training loop.
"""

import contextlib
import importlib
import importlib.util
import io
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlrm.batch import Batch
from dlrm.bench.arch import Arch
from dlrm.bench.local_step import LEARNING_RATE
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRM
from dlrm.nn.embedding import EmbeddingCollection

MODULE = "dlrm_s_pytorch"
UNUSED = ("sklearn.metrics", "tqdm", "mlperf_logging.mllog", "torch.utils.tensorboard")
"""What it imports and a training step does not use; an empty module stands in where missing."""

Layout = tuple[Tensor, Tensor, Tensor, Tensor]
"""A batch as its loader gives it: dense (B, N), offsets (T, B), ids (T, B), labels (B, 1)."""


def load(clone: Path) -> ModuleType:
    """Import the original's training module from a clone.

    Raises:
        ConfigError: The folder holds no such module, or it cannot be imported.

    """
    if not (clone / f"{MODULE}.py").is_file():
        raise ConfigError(
            f"{clone} has no {MODULE}.py; expected a clone of github.com/facebookresearch/dlrm"
        )
    with warnings.catch_warnings(action="ignore"), _importable(clone.resolve()):
        try:
            # It says on standard output what it could not import.
            with contextlib.redirect_stdout(io.StringIO()):
                return importlib.import_module(MODULE)
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{clone / MODULE}.py cannot be imported: {error!r}") from error


@contextlib.contextmanager
def _importable(clone: Path) -> Iterator[None]:
    """Let modules be found in a clone; afterwards none of them nor a stand-in stays known.

    Its modules have names such as `optim` and `data_utils` that may mean others elsewhere.
    """
    before = dict(sys.modules)
    names = {path.stem for path in clone.glob("*.py")} | {
        path.name for path in clone.iterdir() if path.is_dir()
    }
    for name in before:
        if name.partition(".")[0] in names:
            del sys.modules[name]
    for folder in clone.iterdir():
        if folder.is_dir() and not (folder / "__init__.py").exists():
            # A package of that name elsewhere would be found before such a folder.
            package = ModuleType(folder.name)
            package.__path__ = [str(folder)]
            sys.modules[folder.name] = package
    stand_ins = [name for dotted in UNUSED for name in stand_in(dotted)]
    sys.path.insert(0, str(clone))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(clone))
        for name in list(sys.modules):
            if name.partition(".")[0] in names or name in stand_ins:
                del sys.modules[name]
        sys.modules.update(
            {name: module for name, module in before.items() if name not in sys.modules}
        )


def stand_in(dotted: str) -> list[str]:
    """Put empty modules where a dotted name cannot be imported; return their names."""
    try:
        importlib.import_module(dotted)
    except ImportError:
        pass
    else:
        return []
    added: list[str] = []
    words = dotted.split(".")
    for end in range(1, len(words) + 1):
        name = ".".join(words[:end])
        if sys.modules.get(name) is None:
            sys.modules[name] = _Anything(name)
            added.append(name)
    return added


class _Anything(ModuleType):
    """A module whose every name is callable and gives another of its kind."""

    def __init__(self, name: str):
        super().__init__(name)
        # So that submodules are looked for.
        self.__path__ = []

    def __getattr__(self, name: str) -> "_Anything":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(f"{self.__name__}.{name}")

    def __call__(self, *args: object, **kwargs: object) -> "_Anything":
        return self


class Original:
    """The original's model and optimizer: sgd, adagrad or rowwise_adagrad, it has no other.

    It begins with the parameters of `start`, or with its own.

    Raises:
        ConfigError: It has no such optimizer.

    """

    def __init__(self, module: ModuleType, arch: Arch, optimizer: str, start: DLRM | None = None):
        kinds = {
            "sgd": torch.optim.SGD,
            "adagrad": torch.optim.Adagrad,
            "rowwise_adagrad": module.RowWiseSparseAdagrad.RWSAdagrad,
        }
        if optimizer not in kinds:
            raise ConfigError(
                f"the original has no optimizer {optimizer}, only {', '.join(kinds)}: "
                "choose one of them, or measure without --against"
            )
        self.module = module
        # What its `main` does for one process without distribution.
        module.ext_dist.my_size = 1
        np.random.seed(0)
        self.model = module.DLRM_Net(
            arch.model.dim,
            np.array(arch.num_embeddings),
            np.array(arch.bottom),
            np.array(arch.top),
            arch_interaction_op=arch.model.interaction,
            arch_interaction_itself=arch.model.self_interaction,
            sigmoid_bot=-1,
            sigmoid_top=len(arch.top) - 2,
            ndevices=-1,
            loss_function="bce",
        )
        # Its wrappers find the model and the flags among the module's globals.
        wrapped: Any = module
        wrapped.dlrm = self.model
        wrapped.args = SimpleNamespace(loss_function="bce")
        if start is not None:
            _copy(start, self.model)
        # As it is by default; said aloud, torch does not warn of it.
        torch.sparse.check_sparse_tensor_invariants.disable()
        self.optimizer = kinds[optimizer](self.model.parameters(), lr=LEARNING_RATE)
        self.schedule = module.LRPolicyScheduler(self.optimizer, 0, 0, 0)
        self.device = torch.device("cpu")

    def step(self, batch: Layout) -> float:
        """Train on a batch and return its loss."""
        dense, offsets, ids, labels = batch
        out = self.module.dlrm_wrap(dense, offsets, ids, False, self.device, ndevices=-1)
        loss = self.module.loss_fn_wrap(out, labels, False, self.device)
        value = loss.detach().cpu().numpy()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return float(value)


def layout(batch: Batch) -> Layout:
    """Return a one-hot batch as the original's loader gives it."""
    samples, features = batch.ids.shape
    return (
        batch.dense.clone(),
        torch.arange(samples).repeat(features, 1),
        batch.ids.long().t().contiguous(),
        batch.labels.clone(),
    )


@torch.no_grad()
def _copy(model: DLRM, its: Any) -> None:
    tables = model.embeddings
    assert isinstance(tables, EmbeddingCollection)
    assert model.bottom is not None
    for t, bag in enumerate(its.emb_l):
        bag.weight.data.copy_(tables.table(t))
    for mlp, layers in ((model.bottom, its.bot_l), (model.top, its.top_l)):
        linears = [layer for layer in layers if isinstance(layer, torch.nn.Linear)]
        for layer, its_layer in zip(mlp.linears(), linears, strict=True):
            its_layer.weight.data.copy_(layer.weight)
            its_layer.bias.data.copy_(layer.bias)
