"""Deep-learning recommendation models: from a raw click log to a trained, scored, reported model.

    import dlrm
    result = dlrm.train("demo")
    dlrm.evaluate(result.run, split="test")

Every command of the command line is a function here, such as `dlrm.prepare` and `dlrm.bench_train`,
and returns what the command prints. Names are imported when first used, so that `import dlrm` is
fast.
"""

import os
import sys

if (
    sys.argv[:1] == ["-m"]
    and any(word.removeprefix("-m").partition(".")[0] == "dlrm" for word in sys.orig_argv)
    and sys.path[:1] == [os.getcwd()]  # noqa: PTH109 - nothing is imported before
):
    # `python -m` looks for modules in the current folder first, but whatever is called `rich.py`
    # there is no part of this program.
    del sys.path[0]

from importlib import import_module
from typing import TYPE_CHECKING

from dlrm.cores import limit_pools as _limit_pools

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dlrm.batch import Batch as Batch
    from dlrm.commands.bench.diff import bench_diff as bench_diff
    from dlrm.commands.bench.machine import bench_machine as bench_machine
    from dlrm.commands.bench.numerics import bench_numerics as bench_numerics
    from dlrm.commands.bench.ops import bench_ops as bench_ops
    from dlrm.commands.bench.peers import bench_embedding as bench_embedding
    from dlrm.commands.bench.peers import bench_original as bench_original
    from dlrm.commands.bench.report import bench_report as bench_report
    from dlrm.commands.bench.serve import bench_serve as bench_serve
    from dlrm.commands.bench.step import bench_infer as bench_infer
    from dlrm.commands.bench.step import bench_train as bench_train
    from dlrm.commands.compare import compare as compare
    from dlrm.commands.compress import compress as compress
    from dlrm.commands.describe import describe as describe
    from dlrm.commands.embeddings import embeddings as embeddings
    from dlrm.commands.evaluate import evaluate as evaluate
    from dlrm.commands.experiment import experiment as experiment
    from dlrm.commands.explain import explain as explain
    from dlrm.commands.export import export as export
    from dlrm.commands.fit_log import fit_log as fit_log
    from dlrm.commands.generate import generate as generate
    from dlrm.commands.infer import infer as infer
    from dlrm.commands.parity import parity as parity
    from dlrm.commands.plan import plan as plan
    from dlrm.commands.predict import predict as predict
    from dlrm.commands.prepare import prepare as prepare
    from dlrm.commands.report import report as report
    from dlrm.commands.runtimes import compare_runtimes as compare_runtimes
    from dlrm.commands.serve import serve as serve
    from dlrm.commands.trace.compare import trace_compare as trace_compare
    from dlrm.commands.trace.fit import trace_fit as trace_fit
    from dlrm.commands.trace.generate import trace_generate as trace_generate
    from dlrm.commands.trace.profile import trace_profile as trace_profile
    from dlrm.commands.train import train as train
    from dlrm.errors import DlrmError as DlrmError
    from dlrm.estimators.classifier import Classifier as Classifier
    from dlrm.estimators.regressor import Regressor as Regressor
    from dlrm.models.dcn import DCN as DCN
    from dlrm.models.dcn import DCNConfig as DCNConfig
    from dlrm.models.dcnv2 import DCNV2 as DCNV2
    from dlrm.models.dcnv2 import DCNV2Config as DCNV2Config
    from dlrm.models.deepfm import DeepFM as DeepFM
    from dlrm.models.deepfm import DeepFMConfig as DeepFMConfig
    from dlrm.models.dlrm import DLRM as DLRM
    from dlrm.models.dlrm import DLRMConfig as DLRMConfig
    from dlrm.models.finalmlp import FinalMLP as FinalMLP
    from dlrm.models.finalmlp import FinalMLPConfig as FinalMLPConfig
    from dlrm.models.fm import FM as FM
    from dlrm.models.fm import FMConfig as FMConfig
    from dlrm.models.lr import LR as LR
    from dlrm.models.lr import LRConfig as LRConfig
    from dlrm.models.mf import MF as MF
    from dlrm.models.mf import MFConfig as MFConfig
    from dlrm.models.wide_deep import WideDeep as WideDeep
    from dlrm.models.wide_deep import WideDeepConfig as WideDeepConfig
    from dlrm.models.xdeepfm import XDeepFM as XDeepFM
    from dlrm.models.xdeepfm import XDeepFMConfig as XDeepFMConfig
    from dlrm.nn.embedding import EmbeddingCollection as EmbeddingCollection
    from dlrm.nn.tables import TablesConfig as TablesConfig
    from dlrm.run import Run as Run
    from dlrm.schema import Schema as Schema
    from dlrm.training.config import TrainConfig as TrainConfig
    from dlrm.training.predictor import Predictor as Predictor

_COMMANDS = (
    "compare compress describe embeddings evaluate experiment explain export fit_log generate "
    "infer parity plan predict prepare report serve train"
)
"""Names of the commands of one word, each in a module of its name."""

_HOME = {name: f"dlrm.commands.{name}" for name in _COMMANDS.split()} | {
    name: f"dlrm.{module}"
    for module, names in {
        "batch": "Batch",
        "estimators.classifier": "Classifier",
        "models.dcn": "DCN DCNConfig",
        "models.dcnv2": "DCNV2 DCNV2Config",
        "models.dlrm": "DLRM DLRMConfig",
        "models.deepfm": "DeepFM DeepFMConfig",
        "errors": "DlrmError",
        "nn.embedding": "EmbeddingCollection",
        "models.fm": "FM FMConfig",
        "models.finalmlp": "FinalMLP FinalMLPConfig",
        "models.lr": "LR LRConfig",
        "models.mf": "MF MFConfig",
        "training.predictor": "Predictor",
        "estimators.regressor": "Regressor",
        "run": "Run",
        "schema": "Schema",
        "nn.tables": "TablesConfig",
        "training.config": "TrainConfig",
        "models.wide_deep": "WideDeep WideDeepConfig",
        "models.xdeepfm": "XDeepFM XDeepFMConfig",
        "commands.bench.diff": "bench_diff",
        "commands.bench.machine": "bench_machine",
        "commands.bench.numerics": "bench_numerics",
        "commands.bench.ops": "bench_ops",
        "commands.bench.peers": "bench_embedding bench_original",
        "commands.bench.report": "bench_report",
        "commands.bench.serve": "bench_serve",
        "commands.bench.step": "bench_infer bench_train",
        "commands.runtimes": "compare_runtimes",
        "commands.trace.compare": "trace_compare",
        "commands.trace.fit": "trace_fit",
        "commands.trace.generate": "trace_generate",
        "commands.trace.profile": "trace_profile",
    }.items()
    for name in names.split()
}
"""Public name -> the module that has it."""

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


_limit_pools()


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'dlrm' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
