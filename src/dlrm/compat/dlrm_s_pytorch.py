"""The original's `dlrm_s_pytorch.py`: its flags and its printed lines, on this project's DLRM.

Read `run` from top to bottom: data, model, optimizer, then epochs of training with a test pass in
between. Parameters are drawn after the data, because that is the order in which the original's
debug mode takes its random numbers.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import torch
from numpy.random import RandomState

from dlrm.compat.batches import Data
from dlrm.compat.criteo_data import criteo_data
from dlrm.compat.distributed import parallel, silent, spread_tables, start, translate
from dlrm.compat.embeddings import new_embeddings, table_dimensions
from dlrm.compat.flags import PROGRAM, Flags, flag, parse
from dlrm.compat.loop import OPTIMIZERS, load, train
from dlrm.compat.measures import measure_accuracy, measure_mlperf, thresholded
from dlrm.compat.mlperf import MLLog
from dlrm.compat.parameters import draw_parameters, new_generator
from dlrm.compat.printing import (
    print_accuracy,
    print_architecture,
    print_batches,
    print_parameters,
)
from dlrm.compat.quantization import quantize
from dlrm.compat.random_data import gaussian, random_data, synthetic, uniform
from dlrm.errors import ConfigError, DlrmError, WorldError
from dlrm.files import replacing, write_bytes
from dlrm.models.dlrm import DLRM, DLRMConfig
from dlrm.nn.embedding import materialize
from dlrm.parallel.world import World
from dlrm.training.rank_zero_first import rank_zero_first

PROFILE_TABLE, PROFILE_TRACE = Path("dlrm_s_pytorch.prof"), Path("dlrm_s_pytorch.json")
"""The names that the original's benchmark scripts look for, in the current folder."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    That is 0, 1 after an error, 2 for wrong flags, or 130 when interrupted.

    Args:
        arguments: Without the program's name; None for those of this process.

    """
    try:
        translate(os.environ)
        with nullcontext() if _speaks() else redirect_stderr(StringIO()):
            flags = parse(arguments)
        if missing := flags.not_yet():
            _complain(f"not yet: {', '.join(missing)}")
            return 2
        if flags.activation_function != "relu":
            # As the original does, which says nothing.
            _complain("--activation-function is without effect: hidden layers have ReLU")
        with start(flags) as world:
            run(flags, world)
    except (DlrmError, OSError) as error:
        # The first process may be the one that is gone.
        _complain(f"error: {error}", always=isinstance(error, WorldError))
        return 1
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    return 0


def _speaks() -> bool:
    """Whether this is the process that tells the user what is wrong with all of them."""
    return os.environ.get("RANK", "0") == "0"


def _complain(message: str, *, always: bool = False) -> None:
    if always or _speaks():
        print(f"{PROGRAM}: {message}", file=sys.stderr)


def run(flags: Flags, world: World) -> None:
    """Train and test as the flags say, and print what the original prints.

    Args:
        flags: Of the run.
        world: The processes of the run, all of which call this; the first prints.

    Raises:
        DlrmError: See `dlrm.errors`.

    """
    with nullcontext() if world.first else silent(), world.guard():
        # A local rank is the one thing that differs.
        given = {flag(name): value for name, value in asdict(flags).items() if name != "local_rank"}
        world.assert_same(given)
        _run(flags, world)


def _run(flags: Flags, world: World) -> None:
    mllog = MLLog(enabled=flags.mlperf_logging)
    mllog.event("cache_clear", True)
    mllog.start("init")
    if flags.use_gpu:
        print("Using CPU...")
    rng = RandomState(flags.numpy_rand_seed)
    mllog.stop("init")
    mllog.start("run")
    data = rank_zero_first(world, lambda: read_data(flags, rng))
    lengths = {"batches": len(data.train), "test batches": len(data.test)}
    world.assert_same({"rows of the tables": data.schema.num_embeddings, **lengths})
    batches = flags.num_batches if flags.num_batches > 0 else len(data.train)
    model = new_model(flags, data, world)
    if flags.debug_mode:
        bottom = [len(data.schema.dense), *flags.arch_mlp_bot[1:]]
        top = [model.interaction.width, *flags.arch_mlp_top]
        print_architecture(data, bottom, top, table_dimensions(flags, data.schema.num_embeddings))
        print_batches(flags, data, batches)
    draw_parameters(model, rng, new_generator(flags), numerics=flags.numerics)
    if flags.debug_mode:
        print_parameters("initial parameters (weights and bias):", model, flags.print_precision)
    if flags.inference_only:
        if flags.load_model:
            load(flags, model, None, rng, world)
        quantize(flags, model, world)
        print("time/loss/accuracy (if enabled):")
        print("Testing for inference only")
        net = thresholded(flags, parallel(model, world))
        with profiled(flags, world):
            if flags.mlperf_logging:
                metrics = measure_mlperf(flags, net, data, world)
                print(metrics.line(metrics.auc, metrics.accuracy), flush=True)
            else:
                accuracy = measure_accuracy(flags, net, data, world)
                print_accuracy(accuracy, accuracy)
    else:
        with profiled(flags, world):
            train(flags, data, model, rng, batches, world, mllog)
        if flags.debug_mode:
            print_parameters("updated parameters (weights and bias):", model, flags.print_precision)


@contextmanager
def profiled(flags: Flags, world: World) -> Iterator[None]:
    """Profile the block on the first process, where `--enable-profiling` asks for it.

    Writes a table of what took how long, and a trace that Chrome and Perfetto open.
    """
    if not (flags.enable_profiling and world.first):
        yield
        return
    with torch.autograd.profiler.profile(record_shapes=True) as profile:
        yield
    assert profile is not None
    table = profile.key_averages().table(sort_by="self_cpu_time_total")
    write_bytes(PROFILE_TABLE, table.encode())
    with replacing(PROFILE_TRACE) as unfinished:
        profile.export_chrome_trace(str(unfinished))


def read_data(flags: Flags, rng: RandomState) -> Data:
    """Return the data that the flags ask for."""
    if flags.data_generation == "dataset":
        return criteo_data(flags, rng)
    if flags.data_generation == "synthetic":
        tables, padding = len(flags.arch_embedding_size), flags.data_trace_enable_padding
        return random_data(
            flags, rng, synthetic(rng, flags.data_trace_file, tables, padding=padding)
        )
    if flags.rand_data_dist == "gaussian":
        draw_ids = gaussian(
            rng,
            low=flags.rand_data_min,
            high=flags.rand_data_max,
            mean=flags.rand_data_mu,
            sigma=flags.rand_data_sigma,
        )
        return random_data(flags, rng, draw_ids)
    return random_data(flags, rng, uniform(rng))


def new_model(flags: Flags, data: Data, world: World) -> DLRM:
    """Return a DLRM of the sizes that the flags name, with its tables spread over the processes."""
    dim = flags.arch_sparse_feature_size
    concat = flags.qr_flag and flags.qr_operation == "concat"
    if flags.arch_mlp_bot[-1] != dim * (1 + concat):
        raise ConfigError(
            f"--arch-sparse-feature-size={dim} does not match the last "
            f"dimension of --arch-mlp-bot, {flags.arch_mlp_bot[-1]}"
            + (", which must be twice as large with --qr-operation=concat" if concat else "")
        )
    if flags.arch_mlp_top[-1] != 1:
        last = flags.arch_mlp_top[-1]
        raise ConfigError(f"--arch-mlp-top ends in {last}, expected 1: one probability a sample")

    embeddings = new_embeddings(flags, data.schema)
    config = DLRMConfig(
        dim=embeddings.dim,
        bottom=flags.arch_mlp_bot[1:-1],
        top=flags.arch_mlp_top[:-1],
        interaction=flags.arch_interaction_op,  # pyright: ignore[reportArgumentType]
        self_interaction=flags.arch_interaction_itself,
    )
    model = DLRM(data.schema, config, embeddings=embeddings)
    return materialize(spread_tables(model, OPTIMIZERS[flags.optimizer], world))


if __name__ == "__main__":
    sys.exit(main())
