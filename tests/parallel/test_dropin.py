"""The drop-in on several processes prints what it prints on one."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from numpy.random import RandomState

from compat.logs import write_log
from compat.session import GOLDEN, assert_same_lines, ok, read
from dlrm.batch import Batch, Jagged
from dlrm.compat.batches import own_part
from dlrm.compat.distributed import start, translate
from dlrm.compat.dlrm_s_pytorch import main, run
from dlrm.compat.flags import Flags, parse
from dlrm.compat.model import new_model
from dlrm.compat.parameters import draw_parameters, new_generator, parameters
from dlrm.compat.quantization import quantize
from dlrm.compat.random_data import random_data
from dlrm.errors import CheckpointError, ConfigError
from dlrm.nn import embedding, initializer
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.world import World

from .ranks import Ranks

ARCH = (
    "--arch-embedding-size=300-7-250-40-12",
    "--arch-sparse-feature-size=4",
    "--arch-mlp-bot=5-6-4",
    "--arch-mlp-top=6-1",
    "--num-indices-per-lookup=4",
    "--numpy-rand-seed=5",
)
LEARNING = ("--loss-function=bce", "--round-targets=True", "--learning-rate=0.1")
# Batches of 7 samples, and a last one of 2: fewer than there are processes.
UNEVEN = (*ARCH, *LEARNING, "--mini-batch-size=7", "--data-size=30")


@pytest.fixture(autouse=True)
def folder(workdir: Path) -> Path:
    shutil.copytree(GOLDEN / "input", workdir / "input")
    return workdir


def printed(world: World, folder: Path, arguments: tuple[str, ...]) -> list[str]:
    """Return the lines that this process prints."""
    os.chdir(folder)
    torch.manual_seed(world.rank)  # what a process draws of its own must not matter
    with redirect_stdout(StringIO()) as out:
        run(parse(arguments), world)
    return out.getvalue().splitlines()


def lines(ranks: Ranks, world: int, *arguments: str) -> list[str]:
    """Return what the first process prints, and make sure that the others say nothing."""
    first, *others = ranks.run(printed, Path.cwd(), arguments, world=world)
    assert not any(others)
    return first


@pytest.mark.parametrize(
    ("name", "world"),
    [
        # Two samples a batch, on up to four processes; three tables.
        ("01_default", 4),
        ("01_default_debug", 3),
        ("03_itself", 2),
        ("04_synthetic_patched", 2),
        ("05_adagrad_debug", 2),
        ("06_rwsadagrad_debug", 4),
        ("07_bce_medium_debug", 2),
        ("08_qr_add", 2),
        ("08_qr_concat", 3),
        ("09_md_thr1_debug", 3),
        ("10_wbce", 2),
        ("13_wpool_learned_adagrad", 3),
        ("14_lrpolicy", 2),
        ("25_ppp4", 3),
    ],
)
def test_what_the_original_prints(ranks: Ranks, name: str, world: int):
    arguments, expected = read(name)
    assert_same_lines(lines(ranks, world, *arguments, "--dist-backend=gloo"), expected)


TABLES = {
    "plain": [],
    "adagrad": ["--optimizer=adagrad"],
    "rwsadagrad": ["--optimizer=rwsadagrad"],
    "threshold": ["--loss-threshold=0.2", "--loss-function=wbce", "--loss-weights=0.5-2"],
    "cat": ["--arch-interaction-op=cat"],
    "mult": ["--qr-flag", "--qr-threshold=200"],
    "add": ["--qr-flag", "--qr-threshold=20", "--qr-operation=add"],
    "md": ["--md-flag", "--md-threshold=20", "--md-round-dims"],
    "learned": ["--weighted-pooling=learned"],
    "fixed": ["--weighted-pooling=fixed"],
    "2019": ["--numerics=readme2019"],
}


@pytest.mark.parametrize("name", TABLES)
def test_uneven_batches_epochs_and_tests(ranks: Ranks, name: str):
    arguments = (*UNEVEN, *TABLES[name], "--nepochs=2", "--test-freq=3", "--debug-mode")
    one = ok(*arguments).lines
    assert len(one) > 50
    assert_same_lines(lines(ranks, 4, *arguments), one, rounding=1e-6)


def test_several_batches_make_one_update(ranks: Ranks):
    arguments = (*UNEVEN, "--debug-mode", "--mlperf-logging", "--mlperf-grad-accum-iter=3")
    one, three = (
        [line for line in printed if not line.startswith(":::MLLOG")]
        for printed in (ok(*arguments).lines, lines(ranks, 3, *arguments))
    )
    assert_same_lines(three, one, rounding=1e-6)


@pytest.mark.parametrize("flags", [["--memory-map"], ["--data-sub-sample-rate=0.2"]])
def test_criteo_is_prepared_once(ranks: Ranks, folder: Path, flags: list[str]):
    log = write_log(folder / "train.txt", 210)
    arguments = (
        "--data-generation=dataset", f"--raw-data-file={log.name}", "--mini-batch-size=16",
        "--arch-sparse-feature-size=4", "--arch-mlp-bot=13-4", "--arch-mlp-top=8-1",
        "--test-mini-batch-size=5", "--test-freq=4", *LEARNING, *flags,
    )  # fmt: skip
    found = lines(ranks, 3, *arguments, "--processed-data-file=three")
    expected = ok(*arguments, "--processed-data-file=one").lines
    expected = [line.replace("data=one", "data=three").replace("into one", "into three")
                for line in expected]  # fmt: skip
    assert_same_lines(found, expected)


@pytest.mark.parametrize(
    ("tables", "layers", "pooling"),
    [(8, 32, []), (4, 8, ["--weighted-pooling=learned"]), (32, 8, []), (32, 16, [])],
)
def test_quantised_inference(ranks: Ranks, tables: int, layers: int, pooling: list[str]):
    quantised = (f"--quantize-emb-with-bit={tables}", f"--quantize-mlp-with-bit={layers}")
    arguments = (*UNEVEN, "--data-size=100", "--inference-only", *quantised, *pooling)
    assert lines(ranks, 3, *arguments) == ok(*arguments).lines


def through_eight_bits(world: World, arguments: tuple[str, ...], x: torch.Tensor) -> torch.Tensor:
    """Return what the quantised bottom MLP makes of this process' share of x, a part each."""
    flags, rng = parse(arguments), RandomState(3)
    model = new_model(flags, random_data(flags, rng).schema, world)
    draw_parameters(model, rng, new_generator(flags), numerics=flags.numerics)
    quantize(flags, model, world)
    assert model.bottom is not None
    return model.bottom(x.tensor_split(world.size)[world.rank])


def test_one_scale_for_all_shares(ranks: Ranks):
    """Of 8 bits: the numbers of a sample depend on the largest of its batch."""
    flags = (*UNEVEN, "--inference-only", "--quantize-mlp-with-bit=8")
    x = torch.tensor([[0.3, 0.1, 0.2, 0.7, 0.2], [40.0, 3.0, 7.0, 0.0, 1.0], [0.5, 0.4, 0.3, 0, 1]])
    (whole,) = ranks.run(through_eight_bits, flags, x, world=1)
    parts = ranks.run(through_eight_bits, flags, x, world=4)
    assert len(parts[3]) == 0
    assert torch.equal(torch.cat(parts), whole)
    (alone,) = ranks.run(through_eight_bits, flags, x[:1], world=1)
    assert not torch.equal(alone, whole[:1])


SAVING = (*UNEVEN, "--nepochs=3", "--test-freq=3", "--save-model=m.pt")


@pytest.mark.parametrize("name", ["plain", "adagrad", "rwsadagrad", "mult", "md", "learned"])
def test_any_number_goes_on_with_what_any_number_saved(ranks: Ranks, folder: Path, name: str):
    flags = TABLES[name]
    first = lines(ranks, 3, *SAVING, *flags)
    saved = max(i for i, line in enumerate(first) if line.startswith("Saving model"))
    shutil.copy("m.pt", "n.pt")
    for world in (1, 4):
        went_on = lines(ranks, world, *SAVING, *flags, "--load-model=n.pt")
        assert went_on[1].startswith("Saved at: epoch = ")
        at = next(i for i, line in enumerate(went_on) if line.startswith("time/loss"))
        assert_same_lines(went_on[at + 1 :], first[saved + 1 :])
        tested = lines(ranks, world, *UNEVEN, *flags, "--load-model=n.pt", "--inference-only")
        assert tested[-1] == first[saved - 1]
    # And what one saves, others load.
    assert_same_lines(ok(*SAVING, *flags).lines, first)
    assert (
        lines(ranks, 3, *UNEVEN, *flags, "--load-model=m.pt", "--inference-only")[-1]
        == first[saved - 1]
    )


def test_a_file_does_not_say_how_many_processes_wrote_it(ranks: Ranks):
    ok(*SAVING, "--optimizer=adagrad")
    Path("m.pt").rename("one.pt")
    lines(ranks, 2, *SAVING, "--optimizer=adagrad")
    one, two = (_tensors(Path(name)) for name in ("one.pt", "m.pt"))
    assert {name: t.shape for name, t in one.items()} == {name: t.shape for name, t in two.items()}
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=1e-6), name


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_errors_are_the_same_everywhere(ranks: Ranks, folder: Path):
    (folder / "m.pt").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match="not a model that --save-model wrote"):
        lines(ranks, 3, *UNEVEN, "--load-model=m.pt")
    lines(ranks, 2, *SAVING)
    content = bytearray((folder / "m.pt").read_bytes())
    content[-5] ^= 1
    (folder / "m.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        lines(ranks, 3, *UNEVEN, "--load-model=m.pt")


def differently(world: World, folder: Path) -> None:
    os.chdir(folder)
    run(Flags(learning_rate=0.1 * (1 + world.rank), local_rank=world.rank), world)


def test_other_flags_on_another_process_are_named(ranks: Ranks, folder: Path):
    with pytest.raises(ConfigError, match=r"--learning-rate is 0\.1 on rank 0 and 0\.2 on rank 1"):
        ranks.run(differently, folder)


def drawn(world: World, arguments: tuple[str, ...], numbers: int) -> tuple[list, list[int], int]:
    """Return all parameters, the rows of the tables that are kept here, and what comes next."""
    flags = parse(arguments)
    rng, generator = RandomState(3), new_generator(flags)
    before, initializer.PIECE_NUMBERS = initializer.PIECE_NUMBERS, numbers
    try:
        model = new_model(flags, random_data(flags, rng).schema, world)
        draw_parameters(model, rng, generator, numerics=flags.numerics)
    finally:
        initializer.PIECE_NUMBERS = before
    kind = embedding.EmbeddingCollection if world.size == 1 else ShardedCollection
    found = [module for module in model.modules() if isinstance(module, kind)]
    kept = [len(own.rows) for c in found for t in range(len(c.layout.tables))
            for own in c.parts(t)]  # fmt: skip
    following = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
    return [p.copy() for p in parameters(model)], kept, following + rng.randint(1 << 30)


@pytest.mark.parametrize("name", ["plain", "mult", "add", "md", "learned", "2019"])
def test_parameters_are_drawn_as_by_one(ranks: Ranks, name: str):
    arguments = (*UNEVEN, *TABLES[name])
    ((expected, rows, following),) = ranks.run(drawn, arguments, 1 << 22, world=1)
    found = ranks.run(drawn, arguments, 64, world=4)
    for there, _, then in found:
        assert all((a == b).all() for a, b in zip(there, expected, strict=True))
        assert then == following
    # Each table is kept once.
    assert sorted(n for _, kept, _ in found for n in kept) == sorted(rows)


def batch(samples: int) -> Batch:
    lengths = torch.arange(2 * samples) % 3
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return Batch(
        dense=torch.rand(samples, 3),
        ids=torch.zeros(samples, 0, dtype=torch.int64),
        labels=torch.rand(samples, 1),
        lists=Jagged(torch.arange(int(offsets[-1])), offsets),
    )


@pytest.mark.parametrize("samples", [1, 2, 6, 7, 8])
def test_shares_make_up_the_batch(samples: int):
    whole = batch(samples)
    shares = [own_part(whole, World(rank, 3)) for rank in range(3)]
    assert torch.equal(torch.cat([share.dense for share in shares]), whole.dense)
    lists = [share.lists for share in shares if share.lists is not None]
    assert whole.lists is not None
    assert torch.equal(torch.cat([each.values for each in lists]), whole.lists.values)
    assert torch.equal(torch.cat([each.lengths for each in lists]), whole.lists.lengths)
    sizes = tuple(map(len, shares))
    assert all(share.parts == sizes for share in shares)
    assert max(sizes) - min(sizes) <= 1
    assert own_part(whole, World()) is whole


LAUNCHERS = {
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                 "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    "Intel MPI": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    "MVAPICH2": ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE",
                 "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
}  # fmt: skip
TORCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launchers_of_mpi(launcher: str):
    numbers: list[str] = ["5", "8", "1", "4"]
    variables = dict(zip(LAUNCHERS[launcher], numbers, strict=True))
    with pytest.raises(ConfigError, match="8 processes, 4 of them on this host, and MASTER_ADDR"):
        translate(dict(variables))
    variables["MASTER_ADDR"] = "there"
    translate(variables)
    assert [variables[name] for name in TORCH] == numbers
    assert (variables["MASTER_ADDR"], variables["MASTER_PORT"]) == ("there", "29500")


def test_one_host_meets_at_home_and_torchrun_has_the_last_word():
    variables = {"PMI_RANK": "1", "PMI_SIZE": "2"}
    translate(variables)
    assert variables["RANK"] == "1"
    assert variables["MASTER_ADDR"] == "127.0.0.1"
    variables = {"RANK": "3", "WORLD_SIZE": "4", "PMI_RANK": "0", "PMI_SIZE": "1"}
    translate(variables)
    assert variables["RANK"] == "3"
    nobody = {"HOME": "/"}
    translate(nobody)
    assert nobody == {"HOME": "/"}


def test_one_process_needs_no_backend(monkeypatch: pytest.MonkeyPatch):
    for backend in ("", "gloo", "nccl", "mpi", "ccl"):
        assert start(Flags(dist_backend=backend), {}).size == 1
        assert start(Flags(dist_backend=backend), {"RANK": "0", "WORLD_SIZE": "1"}).size == 1
    arguments, expected = read("01_default")
    assert_same_lines(ok(*arguments, "--dist-backend=gloo", "--local-rank=0").lines, expected)


@pytest.mark.parametrize(
    ("backend", "said"),
    [("ccl", 'unknown backend "ccl"'), ("mpi", "backend mpi is not in this build")],
)
def test_a_missing_backend_is_said_once(
    backend: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        assert main([f"--dist-backend={backend}"]) == 1
        err = capsys.readouterr().err
        assert said in err if rank == 0 else not err
        assert main(["--dist-backend=gloo", "--save-onnx"]) == 2
        assert bool(capsys.readouterr().err) == (rank == 0)


def torchrun(folder: Path, *words: str) -> tuple[int, list[str], str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "--standalone", "-m", "dlrm.compat.dlrm_s_pytorch", *words],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=100, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_torchrun(folder: Path):
    arguments, expected = read("01_default")
    status, found, err = torchrun(folder, *arguments, "--dist-backend", "gloo")
    assert status == 0, err
    assert_same_lines(found, expected)


def test_mpirun_and_a_missing_log(folder: Path):
    """Both processes, as mpirun names them; the error comes from the first, and all end."""
    missing = ("--data-generation=dataset", "--raw-data-file=none.txt", "--arch-mlp-bot=13-2")
    command = [sys.executable, "-m", "dlrm.compat.dlrm_s_pytorch", *missing]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    processes = [
        subprocess.Popen(
            command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_SIZE": "2",
                              "OMPI_COMM_WORLD_LOCAL_RANK": rank, "MASTER_PORT": port,
                              "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMP_NUM_THREADS": "1"},
        )
        for rank in "01"
    ]  # fmt: skip
    said = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert re.search(r"error: .*none\.txt", said[0]), said
    assert "rank 0" in said[1]
    assert "none.txt" in said[1]
