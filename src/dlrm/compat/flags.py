"""The original's flags: names, types and defaults as its command line documents them.

Three differences. A flag that takes a boolean means what it says (the original reads every
non-empty value, "False" too, as true). `--numerics` chooses between the random draws of the
original's last commit and those behind the sample run in its README. What this project does not do
yet is refused by name, never ignored.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from dlrm.errors import ConfigError

PROGRAM = "dlrm_s_pytorch.py"

BACKENDS = ("", "gloo", "nccl", "mpi", "ccl")
"""What the original's documentation names; the first lets the program choose."""


def dash_separated_ints(value: str) -> tuple[int, ...]:
    """Return `4-3-2` as (4, 3, 2)."""
    try:
        return tuple(int(part) for part in value.split("-"))
    except ValueError:
        message = f"{value} is not a valid dash separated list of ints"
        raise argparse.ArgumentTypeError(message) from None


def dash_separated_floats(value: str) -> tuple[float, ...]:
    """Return `0.3-0.7` as (0.3, 0.7)."""
    try:
        return tuple(float(part) for part in value.split("-"))
    except ValueError:
        message = f"{value} is not a valid dash separated list of floats"
        raise argparse.ArgumentTypeError(message) from None


def boolean(value: str) -> bool:
    """Return what the word says."""
    match value.lower():
        case "true" | "yes" | "on" | "1":
            return True
        case "false" | "no" | "off" | "0":
            return False
    raise argparse.ArgumentTypeError(f'"{value}" is not a boolean; write True or False')


def _switch() -> Any:
    return field(default=False, metadata={"action": "store_true"})


def _ints(default: str) -> Any:
    return field(default=dash_separated_ints(default), metadata={"type": dash_separated_ints})


def _floats(default: str) -> Any:
    return field(default=dash_separated_floats(default), metadata={"type": dash_separated_floats})


def _choice(*choices: str, say: str | None = None) -> Any:
    """Return a field that takes one of these, the first by default; `say` is its help."""
    return field(default=choices[0], metadata={"choices": choices, "help": say})


def _not_yet(default: Any, **metadata: Any) -> Any:
    """Return a field that is accepted at its default only."""
    return field(default=default, metadata={"not_yet": True, **metadata})


@dataclass(frozen=True, kw_only=True, slots=True)
class Flags:
    """One field a flag: `mini_batch_size` is `--mini-batch-size`."""

    # model
    arch_sparse_feature_size: int = 2
    arch_embedding_size: tuple[int, ...] = _ints("4-3-2")
    arch_mlp_bot: tuple[int, ...] = _ints("4-3-2")
    arch_mlp_top: tuple[int, ...] = _ints("4-2-1")
    arch_interaction_op: str = _choice("dot", "cat")
    arch_interaction_itself: bool = _switch()
    weighted_pooling: str | None = field(
        default=None, metadata={"type": str, "choices": ("fixed", "learned")}
    )
    # embedding tables; the numbers have no effect without their switch
    md_flag: bool = _switch()
    md_threshold: int = 200
    md_temperature: float = 0.3
    md_round_dims: bool = _switch()
    qr_flag: bool = _switch()
    qr_threshold: int = 200
    qr_operation: str = _choice("mult", "add", "concat")
    qr_collisions: int = 4
    # activations and loss
    activation_function: str = "relu"
    loss_function: str = _choice("mse", "bce", "wbce")
    loss_weights: tuple[float, ...] = _floats("1.0-1.0")
    loss_threshold: float = 0.0
    round_targets: bool = False
    # data
    data_size: int = 1
    num_batches: int = 0
    data_generation: str = _choice("random", "dataset", "synthetic", "internal")
    rand_data_dist: str = _choice("uniform", "gaussian")
    rand_data_min: float = 0.0
    rand_data_max: float = 1.0
    rand_data_mu: float = -1.0
    rand_data_sigma: float = 1.0
    data_trace_file: str = "./input/dist_emb_j.log"
    data_set: str = _choice("kaggle", "terabyte")
    raw_data_file: str = ""
    processed_data_file: str = ""
    data_randomize: str = _choice("total", "day", "none")
    data_trace_enable_padding: bool = False
    max_ind_range: int = -1
    data_sub_sample_rate: float = 0.0
    num_indices_per_lookup: int = 10
    num_indices_per_lookup_fixed: bool = False
    num_workers: int = 0
    memory_map: bool = _switch()
    # training
    mini_batch_size: int = 1
    nepochs: int = 1
    learning_rate: float = 0.01
    print_precision: int = 5
    numpy_rand_seed: int = 123
    sync_dense_params: bool = True
    optimizer: str = _choice("sgd", "adagrad", "rwsadagrad")
    dataset_multiprocessing: bool = _switch()
    # inference
    inference_only: bool = _switch()
    quantize_mlp_with_bit: int = 32
    quantize_emb_with_bit: int = 32
    save_onnx: bool = _not_yet(False, action="store_true")
    # devices
    use_gpu: bool = _switch()
    local_rank: int = -1
    dist_backend: str = ""
    # printing and profiling
    print_freq: int = 1
    test_freq: int = -1
    test_mini_batch_size: int = -1
    test_num_workers: int = -1
    print_time: bool = _switch()
    print_wall_time: bool = _switch()
    debug_mode: bool = _switch()
    enable_profiling: bool = _switch()
    plot_compute_graph: bool = _not_yet(False, action="store_true")
    tensor_board_filename: str = "run_kaggle_pt"
    # saved models
    save_model: str = ""
    load_model: str = ""
    # MLPerf
    mlperf_logging: bool = _switch()
    mlperf_acc_threshold: float = 0.0
    mlperf_auc_threshold: float = 0.0
    mlperf_bin_loader: bool = _switch()
    mlperf_bin_shuffle: bool = _switch()
    mlperf_grad_accum_iter: int = 1
    # learning-rate policy
    lr_num_warmup_steps: int = 0
    lr_decay_start_step: int = 0
    lr_num_decay_steps: int = 0
    # this project's own
    numerics: str = _choice(
        "head", "readme2019", say="draw and print as the original's last commit, or as its README"
    )

    def __post_init__(self) -> None:
        for name in (
            *("mini_batch_size", "print_freq", "num_indices_per_lookup", "data_size"),
            "mlperf_grad_accum_iter",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{flag(name)}={getattr(self, name)}: expected at least 1")
        if self.num_batches < 0:
            raise ConfigError(f"--num-batches={self.num_batches}: expected 0 (all) or more")
        for name in ("arch_embedding_size", "arch_mlp_bot", "arch_mlp_top"):
            sizes = getattr(self, name)
            if min(sizes) < 1 or (name == "arch_mlp_bot" and len(sizes) < 2):
                said = "-".join(map(str, sizes))
                raise ConfigError(f"{flag(name)}={said}: expected positive sizes, e.g. 4-3-2")
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
        if self.qr_collisions < 1:
            raise ConfigError(f"--qr-collisions={self.qr_collisions}: expected at least 1")
        if self.md_temperature < 0:
            raise ConfigError(f"--md-temperature={self.md_temperature}: expected 0 or more")
        for name, choices in (
            ("quantize_mlp_with_bit", (8, 16, 32)),
            ("quantize_emb_with_bit", (4, 8, 32)),
        ):
            bits = getattr(self, name)
            said = f"{flag(name)}={bits}"
            if bits not in choices:
                words = ", ".join(map(str, choices))
                raise ConfigError(f"{said}: choose one of {words}")
            if bits != 32 and not self.inference_only:
                raise ConfigError(f"{said} is for --inference-only: training needs all bits")
            if bits != 32 and compressed and name == "quantize_emb_with_bit":
                raise ConfigError(f"{said} and {compressed}: tables take one of the two")

    def not_yet(self) -> list[str]:
        """Return the flags that ask for what this project does not do yet."""
        asked = [
            flag(f.name)
            for f in fields(self)
            if f.metadata.get("not_yet") and getattr(self, f.name) != f.default
        ]
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
    for f in fields(Flags):
        settings: dict[str, Any] = {"default": f.default, "dest": f.name}
        settings["help"] = "not yet" if f.metadata.get("not_yet") else f.metadata.get("help")
        if "action" in f.metadata:
            settings["action"] = f.metadata["action"]
        else:
            settings["type"] = f.metadata.get("type", boolean if f.type is bool else f.type)
            settings["choices"] = f.metadata.get("choices")
        # torch.distributed.launch spells this one with a hyphen since torch 2.
        names = [flag(f.name), *(["--local-rank"] if f.name == "local_rank" else [])]
        result.add_argument(*names, **settings)
    return result


def parse(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> Flags:
    """Return the flags of a command line.

    Args:
        arguments: Without the program's name; None for those of this process.
        program: Its name, in what `--help` says.

    Raises:
        SystemExit: With 2, for what the original's parser refuses too, and for `--help` with 0.
        ConfigError: A value has no meaning.

    """
    return Flags(**vars(parser(program).parse_args(arguments)))
