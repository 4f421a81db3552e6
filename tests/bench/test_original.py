"""The original is imported from a clone: here from a small module of the same interface."""

import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from bench.scripts import script
from dlrm.batch import Batch
from dlrm.bench.arch import Arch
from dlrm.bench.local_step import LocalStep
from dlrm.bench.rivals.original import Original, layout, load
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRMConfig

ARCH = Arch("small", (30, 4, 1), DLRMConfig(dim=4, bottom=(8,), top=(8,)))

# What a training step calls, under the names that it has there, computed in another way.
CLONE = {
    "dlrm_s_pytorch.py": """
        import sys
        import time
        import torch
        from torch import nn
        import extend_distributed as ext_dist
        import dlrm_data_pytorch as dp
        import mlperf_logger
        import optim.rwsadagrad as RowWiseSparseAdagrad
        import sklearn.metrics
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        print("unable to import onnx")
        CALLS = []

        def stack(sizes, sigmoid):
            layers = []
            for i in range(len(sizes) - 1):
                last = nn.Sigmoid() if i == sigmoid else nn.ReLU()
                layers += [nn.Linear(int(sizes[i]), int(sizes[i + 1])), last]
            return nn.Sequential(*layers)

        class DLRM_Net(nn.Module):
            def __init__(self, m_spa, ln_emb, ln_bot, ln_top, arch_interaction_op,
                         arch_interaction_itself, sigmoid_bot, sigmoid_top, ndevices,
                         loss_function):
                super().__init__()
                assert (arch_interaction_op, arch_interaction_itself) == ("dot", False)
                assert ext_dist.my_size == 1
                self.emb_l = nn.ModuleList(
                    nn.EmbeddingBag(int(n), m_spa, mode="sum", sparse=True) for n in ln_emb)
                self.bot_l = stack(ln_bot, sigmoid_bot)
                self.top_l = stack(ln_top, sigmoid_top)
                self.loss_fn = nn.BCELoss()

            def forward(self, dense, lS_o, lS_i):
                x = self.bot_l(dense)
                v = [x] + [e(i, o) for e, i, o in zip(self.emb_l, lS_i, lS_o)]
                dots = [(v[i] * v[j]).sum(1) for i in range(len(v)) for j in range(i)]
                return self.top_l(torch.cat([x, torch.stack(dots, 1)], 1))

        def dlrm_wrap(X, lS_o, lS_i, use_gpu, device, ndevices=1):
            CALLS.append("forward")
            return dlrm(X, lS_o, lS_i)

        def loss_fn_wrap(Z, T, use_gpu, device):
            assert args.loss_function == "bce"
            CALLS.append("loss")
            return dlrm.loss_fn(Z, T)

        class LRPolicyScheduler:
            def __init__(self, optimizer, warmup, decay_start, decay_steps):
                assert (warmup, decay_start, decay_steps) == (0, 0, 0)

            def step(self):
                CALLS.append("schedule")

        def inference():
            time.sleep(0.015)
            print("tested")

        def run():
            dp.make_criteo_data_and_loaders()
            print(*sys.argv[1:])
            time.sleep(0.03)
            inference()
    """,
    "extend_distributed.py": "my_size = -1",
    "mlperf_logger.py": """
        try:
            from mlperf_logging import mllog
            LOGGER = mllog.get_mllogger()
        except ImportError:
            pass
    """,
    "dlrm_data_pytorch.py": """
        import time
        import data_utils

        def make_criteo_data_and_loaders():
            time.sleep(0.01)
            data_utils.getCriteoAdData()
    """,
    "data_utils.py": """
        import time
        WHOSE = 'the clone'

        def getCriteoAdData():
            time.sleep(0.02)
            print("preprocessed")
    """,
    "optim/rwsadagrad.py": "from torch.optim import Adagrad as RWSAdagrad",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name, content in CLONE.items():
        path = tmp_path / "clone" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content))
    return tmp_path / "clone"


def batches(count: int, samples: int = 16) -> list[Batch]:
    torch.manual_seed(1)
    return [
        Batch(
            torch.rand(samples, 13),
            torch.stack([torch.randint(n, (samples,)) for n in ARCH.num_embeddings], 1).int(),
            torch.randint(2, (samples, 1)).float(),
        )
        for _ in range(count)
    ]


def test_it_is_imported_and_leaves_no_trace(
    clone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Somebody else's module of a name that the original uses too.
    monkeypatch.setitem(sys.modules, "data_utils", sys)
    path, modules = list(sys.path), set(sys.modules)
    module = load(clone)
    assert module.dp.data_utils.WHOSE == "the clone"
    assert Path(module.__file__ or "").parent == clone
    assert sys.modules["data_utils"] is sys
    assert sys.path == path
    left = {name for name in set(sys.modules) - modules if "." not in name}
    assert not left & {Path(name).parts[0].removesuffix(".py") for name in CLONE}
    assert capsys.readouterr().out == ""
    # A second clone is another module.
    assert load(clone) is not module


def test_what_a_step_does_not_use_may_be_missing(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tqdm", "sklearn", "sklearn.metrics", "torch.utils.tensorboard"):
        # None makes the import fail.
        monkeypatch.setitem(sys.modules, name, None)
    module = load(clone)
    assert callable(module.SummaryWriter)
    assert sys.modules["tqdm"] is None


@pytest.mark.parametrize("broken", ["import nothing_of_that_name", "raise SystemExit(3)"])
def test_a_clone_that_cannot_be_imported_is_named(clone: Path, broken: str) -> None:
    (clone / "data_utils.py").write_text(broken)
    with pytest.raises(ConfigError, match=r"dlrm_s_pytorch\.py cannot be imported: "):
        load(clone)
    assert "data_utils" not in sys.modules


def test_a_folder_that_is_no_clone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no dlrm_s_pytorch\.py; expected a clone"):
        load(tmp_path)


def test_a_batch_in_its_layout() -> None:
    (batch,) = batches(1, samples=5)
    dense, offsets, ids, labels = layout(batch)
    assert dense.equal(batch.dense)
    assert offsets.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert ids.dtype == torch.int64
    assert ids.is_contiguous()
    assert ids.t().tolist() == batch.ids.tolist()
    assert labels.shape == (5, 1)
    assert labels.equal(batch.labels)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_from_equal_parameters_both_do_the_same(clone: Path, optimizer: str) -> None:
    ours = LocalStep(ARCH, "fp32", optimizer)
    original = Original(load(clone), ARCH, optimizer, ours.model)
    for batch in batches(4):
        assert original.step(layout(batch)) == pytest.approx(ours.step(batch), abs=1e-5)
    assert original.module.CALLS == ["forward", "loss", "schedule"] * 4


def test_its_own_parameters_are_copied_not_shared(clone: Path) -> None:
    ours = LocalStep(ARCH, "fp32", "rowwise_adagrad")
    original = Original(load(clone), ARCH, "rowwise_adagrad", ours.model)
    before = {name: value.clone() for name, value in ours.model.state_dict().items()}
    (batch,) = batches(1)
    original.step(layout(batch))
    assert all(v.equal(before[name]) for name, v in ours.model.state_dict().items())
    assert not original.model.emb_l[0].weight.equal(
        before["embeddings.weight"][: ARCH.num_embeddings[0]]
    )


def test_an_optimizer_that_it_has_not_is_named(clone: Path) -> None:
    with pytest.raises(ConfigError, match="the original has no optimizer adam, only sgd, adagrad"):
        Original(load(clone), ARCH, "adam")


def test_its_program_is_run_and_its_stages_are_timed(
    clone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["whatever"])
    began = time.perf_counter()
    stages = script("original_program").run(clone, ["--some-flag=3"])
    took_s = time.perf_counter() - began
    assert capsys.readouterr().out.split() == ["preprocessed", "--some-flag=3", "tested"]
    assert stages["prepare_s"] >= 0.02
    assert stages["read_s"] >= 0.01
    assert stages["train_s"] >= 0.03
    assert stages["test_s"] >= 0.015
    # Nothing is counted twice.
    assert sum(stages.values()) <= took_s
