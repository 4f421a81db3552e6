"""The original's `dlrm_s_pytorch.py`: its flags and its printed lines, on this project's DLRM.

Read `run` from top to bottom: data, model, optimizer, then epochs of training with a test pass in
between. Parameters are drawn after the data, because that is the order in which the original's
debug mode takes its random numbers.
"""

import sys
from collections.abc import Sequence

from numpy.random import RandomState

from dlrm.compat.accuracy import measure_accuracy
from dlrm.compat.batches import Data
from dlrm.compat.criteo_data import criteo_data
from dlrm.compat.embeddings import new_embeddings, table_dimensions
from dlrm.compat.flags import PROGRAM, Flags, parse
from dlrm.compat.loop import load, train
from dlrm.compat.parameters import draw_parameters, new_generator
from dlrm.compat.printing import (
    print_accuracy,
    print_architecture,
    print_batches,
    print_parameters,
)
from dlrm.compat.quantization import quantize
from dlrm.compat.random_data import gaussian, random_data, uniform
from dlrm.compat.synthetic_data import synthetic
from dlrm.errors import ConfigError, DlrmError
from dlrm.models.dlrm import DLRM


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    That is 0, 1 after an error, 2 for wrong flags, or 130 when interrupted.

    Args:
        arguments: Without the program's name; None for those of this process.

    """
    try:
        flags = parse(arguments)
        if missing := flags.not_yet():
            print(f"{PROGRAM}: not yet: {', '.join(missing)}", file=sys.stderr)
            return 2
        run(flags)
    except (DlrmError, OSError) as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 130
    return 0


def run(flags: Flags) -> None:
    """Train and test as the flags say, and print what the original prints."""
    rng = RandomState(flags.numpy_rand_seed)
    data = read_data(flags, rng)
    batches = flags.num_batches if flags.num_batches > 0 else len(data.train)
    model = new_model(flags, data)
    if flags.debug_mode:
        bottom = [data.num_dense, *flags.arch_mlp_bot[1:]]
        top = [model.interaction.width, *flags.arch_mlp_top]
        print_architecture(data, bottom, top, table_dimensions(flags, data.rows))
        print_batches(flags, data, batches)
    draw_parameters(model, rng, new_generator(flags), numerics=flags.numerics)
    if flags.debug_mode:
        print_parameters("initial parameters (weights and bias):", model, flags.print_precision)
    if flags.inference_only:
        if flags.load_model:
            load(flags, model, None, rng)
        quantize(flags, model)
        print("time/loss/accuracy (if enabled):")
        print("Testing for inference only")
        accuracy = measure_accuracy(flags, model, data)
        print_accuracy(accuracy, accuracy)
    else:
        train(flags, data, model, rng, batches)
        if flags.debug_mode:
            print_parameters("updated parameters (weights and bias):", model, flags.print_precision)


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


def new_model(flags: Flags, data: Data) -> DLRM:
    """Return a DLRM of the sizes that the flags name."""
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
    return DLRM(
        data.num_dense,
        new_embeddings(flags, data.rows, data.names),
        bottom=flags.arch_mlp_bot[1:-1],
        top=flags.arch_mlp_top[:-1],
        interaction=flags.arch_interaction_op,
        self_interaction=flags.arch_interaction_itself,
    )


if __name__ == "__main__":
    sys.exit(main())
