"""The original's `dlrm_s_pytorch.py`: its flags and its printed lines, on this project's DLRM.

Read `run` from top to bottom: data, model, optimizer, then epochs of training with a test pass in
between. Parameters are drawn after the data, because that is the order in which the original's
debug mode takes its random numbers.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import torch
from numpy.random import RandomState

from dlrm.compat.criteo_data import criteo_data
from dlrm.compat.distributed import start, translate
from dlrm.compat.engine import NewEngine, PyTorch
from dlrm.compat.flags import PROGRAM, Flags, flag, parse
from dlrm.compat.loop import train
from dlrm.compat.measures import measure_accuracy, measure_mlperf
from dlrm.compat.mlperf import MLLog
from dlrm.compat.model import new_model, table_dimensions
from dlrm.compat.parameters import draw_parameters, new_generator, parameters
from dlrm.compat.printing import (
    print_accuracy,
    print_architecture,
    print_batches,
    print_parameters,
)
from dlrm.compat.random_data import random_data
from dlrm.errors import DlrmError, WorldError
from dlrm.files import replacing, write_bytes
from dlrm.parallel.world import World
from dlrm.training.rank_zero_first import rank_zero_first

PROFILE_TABLE, PROFILE_TRACE = Path("dlrm_s_pytorch.prof"), Path("dlrm_s_pytorch.json")
"""The names that the original's benchmark scripts look for, in the current folder."""


def main(
    arguments: Sequence[str] | None = None,
    new_engine: NewEngine = PyTorch,
    program: str = PROGRAM,
) -> int:
    """Run a command line and return its exit status.

    That is 0, 1 after an error, 2 for wrong flags, or 130 when interrupted.

    Args:
        arguments: Without the program's name; None for those of this process.
        new_engine: What computes.
        program: Name of the command, which messages begin with.

    """
    try:
        translate(os.environ)
        with nullcontext() if _speaks() else redirect_stderr(StringIO()):
            flags = parse(arguments, program)
        if missing := flags.not_yet():
            _complain(program, f"not yet: {', '.join(missing)}")
            return 2
        if flags.activation_function != "relu":
            # As the original does, which says nothing.
            _complain(program, "--activation-function is without effect: hidden layers have ReLU")
        with start(flags) as world:
            run(flags, world, new_engine)
    except (DlrmError, OSError) as error:
        # The first process may be the one that is gone.
        _complain(program, f"error: {error}", always=isinstance(error, WorldError))
        return 1
    except KeyboardInterrupt:
        _complain(program, "interrupted")
        return 130
    return 0


def _speaks() -> bool:
    """Whether this is the process that tells the user what is wrong with all of them."""
    return os.environ.get("RANK", "0") == "0"


def _complain(program: str, message: str, *, always: bool = False) -> None:
    if always or _speaks():
        print(f"{program}: {message}", file=sys.stderr)


def run(flags: Flags, world: World, new_engine: NewEngine = PyTorch) -> None:
    """Train and test as the flags say, and print what the original prints.

    All processes of the run call this; the first prints.

    Raises:
        DlrmError: See `dlrm.errors`.

    """
    # The first process prints for all.
    with nullcontext() if world.first else redirect_stdout(StringIO()), world.guard():
        # A local rank is the one thing that differs.
        given = {flag(name): value for name, value in asdict(flags).items() if name != "local_rank"}
        world.assert_same(given)
        _run(flags, world, new_engine)


def _run(flags: Flags, world: World, new_engine: NewEngine) -> None:
    mllog = MLLog(enabled=flags.mlperf_logging)
    mllog.event("cache_clear", True)
    mllog.start("init")
    if flags.use_gpu:
        print("Using CPU...")
    rng = RandomState(flags.numpy_rand_seed)
    mllog.stop("init")
    mllog.start("run")
    read_data = criteo_data if flags.data_generation == "dataset" else random_data
    data = rank_zero_first(world, lambda: read_data(flags, rng))
    lengths = {"batches": len(data.train), "test batches": len(data.test)}
    world.assert_same({"rows of the tables": data.schema.num_embeddings, **lengths})
    batches = flags.num_batches if flags.num_batches > 0 else len(data.train)
    model = new_model(flags, data.schema, world)
    if flags.debug_mode:
        bottom = [len(data.schema.dense), *flags.arch_mlp_bot[1:]]
        top = [model.interaction.width, *flags.arch_mlp_top]
        print_architecture(data, bottom, top, table_dimensions(flags, data.schema.num_embeddings))
        print_batches(flags, data, batches)
    draw_parameters(model, rng, new_generator(flags), numerics=flags.numerics)
    if flags.debug_mode:
        title = "initial parameters (weights and bias):"
        print_parameters(title, parameters(model), flags.print_precision)
    if not flags.inference_only:
        mllog.settings(flags)
    engine = new_engine(flags, model, rng, world)
    with profiled(flags, world):
        if not flags.inference_only:
            train(flags, data, engine, batches, world, mllog)
        else:
            print("time/loss/accuracy (if enabled):")
            print("Testing for inference only")
            if flags.mlperf_logging:
                metrics = measure_mlperf(flags, engine.logits, data, world)
                print(metrics.line(metrics.auc, metrics.accuracy), flush=True)
            else:
                accuracy = measure_accuracy(flags, engine.logits, data, world)
                print_accuracy(accuracy, accuracy)
    if flags.debug_mode and not flags.inference_only:
        title = "updated parameters (weights and bias):"
        print_parameters(title, engine.parameters(), flags.print_precision)


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


if __name__ == "__main__":
    sys.exit(main())
