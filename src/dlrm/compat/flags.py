"""The original's flags: names, types and defaults as its command line documents them.

Three differences. A flag that takes a boolean means what it says (the original reads every
non-empty value, "False" too, as true). `--numerics` chooses between the random draws of the
original's last commit and those behind the sample run in its README. What this project does not do
yet is refused by name, never ignored.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import torch

from dlrm.errors import ConfigError

Number = TypeVar("Number", int, float)

PROGRAM = "dlrm_s_pytorch.py"

BACKENDS = ("", "gloo", "nccl", "mpi", "ccl")
"""What the original's documentation names; the first lets the program choose."""


NOT_YET = ("save_onnx", "plot_compute_graph")
"""Switches that are refused by name."""

AT_LEAST_1 = (
    *("mini_batch_size", "print_freq", "num_indices_per_lookup", "data_size"),
    *("mlperf_grad_accum_iter", "qr_collisions"),
)

Switch = Annotated[bool, "switch"]
"""A flag that takes no value."""


def dash_separated_ints(value: str) -> tuple[int, ...]:
    """Return `4-3-2` as (4, 3, 2)."""
    return _dash_separated(value, int)


def dash_separated_floats(value: str) -> tuple[float, ...]:
    """Return `0.3-0.7` as (0.3, 0.7)."""
    return _dash_separated(value, float)


def _dash_separated(value: str, kind: type[Number]) -> tuple[Number, ...]:
    try:
        return tuple(kind(part) for part in value.split("-"))
    except ValueError:
        message = f"{value} is not a valid dash separated list of {kind.__name__}s"
        raise argparse.ArgumentTypeError(message) from None


def boolean(value: str) -> bool:
    """Return what the word says."""
    match value.lower():
        case "true" | "yes" | "on" | "1":
            return True
        case "false" | "no" | "off" | "0":
            return False
    raise argparse.ArgumentTypeError(f'"{value}" is not a boolean; write True or False')


@dataclass(frozen=True, kw_only=True, slots=True)
class Flags:
    """One field a flag: `mini_batch_size` is `--mini-batch-size`."""

    # model
    arch_sparse_feature_size: int = 2
    arch_embedding_size: tuple[int, ...] = (4, 3, 2)
    arch_mlp_bot: tuple[int, ...] = (4, 3, 2)
    arch_mlp_top: tuple[int, ...] = (4, 2, 1)
    arch_interaction_op: Literal["dot", "cat"] = "dot"
    arch_interaction_itself: Switch = False
    weighted_pooling: Literal["fixed", "learned"] | None = None
    # embedding tables; the numbers have no effect without their switch
    md_flag: Switch = False
    md_threshold: int = 200
    md_temperature: float = 0.3
    md_round_dims: Switch = False
    qr_flag: Switch = False
    qr_threshold: int = 200
    qr_operation: Literal["mult", "add", "concat"] = "mult"
    qr_collisions: int = 4
    # activations and loss
    activation_function: str = "relu"
    loss_function: Literal["mse", "bce", "wbce"] = "mse"
    loss_weights: tuple[float, ...] = (1.0, 1.0)
    loss_threshold: float = 0.0
    round_targets: bool = False
    # data
    data_size: int = 1
    num_batches: int = 0
    data_generation: Literal["random", "dataset", "synthetic", "internal"] = "random"
    rand_data_dist: Literal["uniform", "gaussian"] = "uniform"
    rand_data_min: float = 0.0
    rand_data_max: float = 1.0
    rand_data_mu: float = -1.0
    rand_data_sigma: float = 1.0
    data_trace_file: str = "./input/dist_emb_j.log"
    data_set: Literal["kaggle", "terabyte"] = "kaggle"
    raw_data_file: str = ""
    processed_data_file: str = ""
    data_randomize: Literal["total", "day", "none"] = "total"
    data_trace_enable_padding: bool = False
    max_ind_range: int = -1
    data_sub_sample_rate: float = 0.0
    num_indices_per_lookup: int = 10
    num_indices_per_lookup_fixed: bool = False
    num_workers: int = 0
    memory_map: Switch = False
    # training
    mini_batch_size: int = 1
    nepochs: int = 1
    learning_rate: float = 0.01
    print_precision: int = 5
    numpy_rand_seed: int = 123
    sync_dense_params: bool = True
    optimizer: Literal["sgd", "adagrad", "rwsadagrad"] = "sgd"
    dataset_multiprocessing: Switch = False
    # inference
    inference_only: Switch = False
    quantize_mlp_with_bit: int = 32
    quantize_emb_with_bit: int = 32
    save_onnx: Switch = False
    # devices
    use_gpu: Switch = False
    local_rank: int = -1
    dist_backend: str = ""
    # printing and profiling
    print_freq: int = 1
    test_freq: int = -1
    test_mini_batch_size: int = -1
    test_num_workers: int = -1
    print_time: Switch = False
    print_wall_time: Switch = False
    debug_mode: Switch = False
    enable_profiling: Switch = False
    plot_compute_graph: Switch = False
    tensor_board_filename: str = "run_kaggle_pt"
    # saved models
    save_model: str = ""
    load_model: str = ""
    # MLPerf
    mlperf_logging: Switch = False
    mlperf_acc_threshold: float = 0.0
    mlperf_auc_threshold: float = 0.0
    mlperf_bin_loader: Switch = False
    mlperf_bin_shuffle: Switch = False
    mlperf_grad_accum_iter: int = 1
    # learning-rate policy
    lr_num_warmup_steps: int = 0
    lr_decay_start_step: int = 0
    lr_num_decay_steps: int = 0
    # this project's own
    numerics: Literal["head", "readme2019"] = field(
        default="head",
        metadata={"help": "draw and print as the original's last commit, or as its README"},
    )

    def __post_init__(self) -> None:
        least: dict[str, float] = dict.fromkeys(AT_LEAST_1, 1)
        for name, low in (least | {"num_batches": 0, "md_temperature": 0}).items():
            if (value := getattr(self, name)) < low:
                expected = f"at least {low}" if low else "0 or more"
                raise ConfigError(f"{flag(name)}={value}: expected {expected}")
        for name in ("arch_embedding_size", "arch_mlp_bot", "arch_mlp_top"):
            sizes = getattr(self, name)
            if min(sizes) < 1 or (name == "arch_mlp_bot" and len(sizes) < 2):
                sizes_text = "-".join(map(str, sizes))
                raise ConfigError(f"{flag(name)}={sizes_text}: expected positive sizes, e.g. 4-3-2")
        if not 0.0 <= self.data_sub_sample_rate <= 1.0:
            rate = self.data_sub_sample_rate
            raise ConfigError(f"--data-sub-sample-rate={rate}: expected a share between 0 and 1")
        if self.dist_backend not in BACKENDS:
            raise ConfigError(
                f"--dist-backend={self.dist_backend}: choose one of {', '.join(BACKENDS[1:])}"
            )
        if len(self.loss_weights) != 2:
            raise ConfigError(f"--loss-weights takes two numbers, got {len(self.loss_weights)}")
        self._check_tables()
        if self.lr_num_decay_steps > 0 and self.lr_decay_start_step < self.lr_num_warmup_steps:
            raise ConfigError(
                f"--lr-decay-start-step={self.lr_decay_start_step} comes before the end of "
                f"--lr-num-warmup-steps={self.lr_num_warmup_steps}: "
                "learning rate warmup must finish before the decay starts"
            )

    def _check_tables(self) -> None:
        compressed = "--qr-flag" if self.qr_flag else "--md-flag" if self.md_flag else None
        if self.qr_flag and self.md_flag:
            raise ConfigError("--qr-flag and --md-flag: tables take one of the two")
        if compressed and self.weighted_pooling:
            raise ConfigError(
                f"--weighted-pooling={self.weighted_pooling} and {compressed}: "
                "tables take one of the two"
            )
        for name, choices in (
            ("quantize_mlp_with_bit", (8, 16, 32)),
            ("quantize_emb_with_bit", (4, 8, 32)),
        ):
            bits = getattr(self, name)
            setting = f"{flag(name)}={bits}"
            if bits not in choices:
                words = ", ".join(map(str, choices))
                raise ConfigError(f"{setting}: choose one of {words}")
            if bits != 32 and not self.inference_only:
                raise ConfigError(f"{setting} is for --inference-only: training needs all bits")
            if bits != 32 and compressed and name == "quantize_emb_with_bit":
                raise ConfigError(f"{setting} and {compressed}: tables take one of the two")

    def not_yet(self) -> list[str]:
        """Return the flags that ask for what this project does not do yet."""
        asked = [flag(name) for name in NOT_YET if getattr(self, name)]
        if self.use_gpu and torch.cuda.is_available():
            # Without a GPU the original takes the CPU, and so do we.
            asked.append("--use-gpu")
        if self.data_generation == "internal":
            asked.append("--data-generation=internal")
        return asked


def flag(name: str) -> str:
    """Return the flag of a field: `mini_batch_size` is `--mini-batch-size`."""
    # The one flag that the original spells with an underscore.
    return "--local_rank" if name == "local_rank" else "--" + name.replace("_", "-")


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """Return the parser of the command line, made from the fields of `Flags`."""
    result = argparse.ArgumentParser(
        prog=program, description="Train Deep Learning Recommendation Model (DLRM)"
    )
    parsers = {
        bool: boolean,
        tuple[int, ...]: dash_separated_ints,
        tuple[float, ...]: dash_separated_floats,
    }
    for f in fields(Flags):
        settings: dict[str, Any] = {"default": f.default, "dest": f.name}
        settings["help"] = "not yet" if f.name in NOT_YET else f.metadata.get("help")
        kind: Any = get_args(f.type)[0] if get_origin(f.type) is Union else f.type
        if kind == Switch:
            settings["action"] = "store_true"
        elif get_origin(kind) is Literal:
            settings["choices"] = get_args(kind)
        else:
            settings["type"] = parsers.get(kind, kind)
        # torch.distributed.launch spells this one with a hyphen since torch 2.
        names = [flag(f.name), *(["--local-rank"] if f.name == "local_rank" else [])]
        result.add_argument(*names, **settings)
    return result


def parse(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> Flags:
    """Return the flags of a command line, as `main` takes it.

    Raises:
        SystemExit: With 2, for what the original's parser refuses too, and for `--help` with 0.
        ConfigError: A value has no meaning.

    """
    return Flags(**vars(parser(program).parse_args(arguments)))
