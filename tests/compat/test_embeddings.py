"""Compressed tables and weighted pooling in the drop-in; golden files hold what they compute."""

from pathlib import Path

import pytest
import torch

from dlrm.batch import Batch
from dlrm.compat.flags import Flags
from dlrm.compat.model import new_embeddings, table_dimensions
from dlrm.nn.concat import ConcatEmbeddings
from dlrm.nn.embedding import EmbeddingCollection, materialize
from dlrm.schema import Schema

from .session import ok, run

SCHEMA = Schema.one_hot(13, (500, 300, 100, 7), ("a", "b", "c", "d"))
ARCH = [
    "--arch-sparse-feature-size=8",
    "--arch-embedding-size=500-300-100-7",
    "--arch-mlp-bot=13-16-8",
    "--arch-mlp-top=16-1",
    "--mini-batch-size=16",
    "--num-batches=6",
    "--test-freq=3",
    "--round-targets=True",
]


@pytest.fixture(autouse=True)
def folder(workdir: Path) -> Path:
    """Where a test pass writes its events."""
    return workdir


def test_fixed_weights_are_no_weights():
    plain = ok(*ARCH, "--learning-rate=0.1")
    assert ok(*ARCH, "--learning-rate=0.1", "--weighted-pooling=fixed").out == plain.out
    assert ok(*ARCH, "--learning-rate=0.1", "--weighted-pooling=learned").out != plain.out


@pytest.mark.parametrize(
    "flags", [["--qr-flag", "--qr-threshold=50"], ["--md-flag"], ["--weighted-pooling=learned"]]
)
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rwsadagrad"])
def test_saved_and_loaded(flags: list[str], optimizer: str):
    arguments = [*ARCH, *flags, f"--optimizer={optimizer}"]
    saved = ok(*arguments, "--save-model=m")
    tested = ok(*arguments, "--load-model=m", "--inference-only")
    best = max(line.split()[1] for line in saved.lines if line.startswith(" accuracy"))
    assert tested.lines[-1] == f" accuracy {best} %, best {best} %"


def test_thresholds_keep_small_tables_as_they_are():
    embeddings = new_embeddings(Flags(arch_sparse_feature_size=8, qr_flag=True), SCHEMA)
    assert isinstance(embeddings, ConcatEmbeddings)
    assert [part.names for part in embeddings.typed_parts()] == [("c", "d"), ("a", "b")]
    plain = new_embeddings(Flags(qr_flag=True, qr_threshold=500), SCHEMA)
    assert isinstance(plain, EmbeddingCollection)
    flags = Flags(arch_sparse_feature_size=8, md_flag=True, md_threshold=100)
    embeddings = materialize(new_embeddings(flags, SCHEMA))
    assert isinstance(embeddings, ConcatEmbeddings)
    assert [part.names for part in embeddings.typed_parts()] == [("a",), ("b",), ("c", "d")]
    batch = Batch(torch.zeros(1, 13), torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 1))
    assert embeddings(batch).shape == (1, 4, 8)


def test_rounded_dimensions_do_not_crash():
    flags = Flags(arch_sparse_feature_size=8, md_flag=True, md_round_dims=True)
    assert table_dimensions(flags, SCHEMA.num_embeddings) == [2, 4, 4, 8]
    assert ok(*ARCH, "--md-flag", "--md-round-dims", "--md-threshold=1").losses


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--qr-flag", "--md-flag"], "--qr-flag and --md-flag: tables take one of the two"),
        (["--qr-flag", "--weighted-pooling=fixed"], "--weighted-pooling=fixed and --qr-flag"),
        (["--md-flag", "--weighted-pooling=learned"], "--weighted-pooling=learned and --md-flag"),
        (["--qr-flag", "--qr-collisions=0"], "--qr-collisions=0: expected at least 1"),
        (["--md-flag", "--md-temperature=-1"], "--md-temperature=-1.0: expected 0 or more"),
        (["--qr-flag", "--qr-operation=concat"], "must be twice as large with --qr-operation"),
        (
            ["--qr-flag", "--qr-operation=concat", "--arch-mlp-bot=13-16"],
            "table 2: with 100 rows its table is not above --qr-threshold=200",
        ),
    ],
)
def test_what_cannot_be(flags: list[str], said: str):
    result = run(*ARCH, *flags)
    assert result.status == 1
    assert said in result.err
