"""Operations of a sample, against a count by hand, for all models and compressions."""

from itertools import pairwise

import pytest
import torch

from dlrm.bench.arch import ARCHS
from dlrm.errors import ConfigError
from dlrm.models import MODELS, DeepFMConfig, DLRMConfig
from dlrm.nn.tables import TablesConfig
from dlrm.planning.arithmetic import arithmetic
from dlrm.schema import Schema

N, ROWS = 13, {"user": 300, "item": 50_000, "day": 7}
SCHEMA = Schema.one_hot(N, ROWS.values(), list(ROWS))


def counted(config, schema=SCHEMA):
    with torch.device("meta"):
        model = config.build(schema)
    return arithmetic(model, schema)


def layers(*sizes: int, first: bool = False) -> int:
    """Forwards, for the weights, and for the inputs, which the first layer has no need of."""
    return sum((4 if first and at == 0 else 6) * n * k for at, (n, k) in enumerate(pairwise(sizes)))


def test_dlrm_is_its_layers_and_its_dot_products():
    vectors, dim = len(ROWS) + 1, 16
    config = DLRMConfig(dim=dim, bottom=(32, 8), top=(64,))
    pairs = vectors * (vectors - 1) // 2
    mlps = layers(N, 32, 8, dim, first=True) + layers(dim + pairs, 64, 1)
    assert counted(config).flops - mlps == 3 * 2 * vectors**2 * dim
    for arch in ARCHS.values():
        found = counted(arch.model, arch.schema)
        mlps = layers(*arch.bottom, first=True) + layers(*arch.top)
        dots = 3 * 2 * (len(arch.schema.features) + 1) ** 2 * arch.model.dim
        assert found.flops == mlps + dots
        assert found.flops / 3 < found.forward_flops < found.flops / 2.5


def test_what_multiplies_no_matrices_changes_nothing():
    plain = counted(DLRMConfig(bottom=(32,), top=(64,)))
    assert counted(DLRMConfig(bottom=(32,), top=(64,), dropout=0.5, batch_norm=True)) == plain


def test_deepfm_is_its_deep_part_and_weights_of_the_dense_features():
    config = DeepFMConfig(dim=8, deep=(32, 16))
    found = counted(config).flops
    deep = layers(N + len(ROWS) * 8, 32, 16, 1)
    assert deep <= found <= 1.2 * deep


@pytest.mark.parametrize("compression", ["none", "qr", "mixed_dim", "hash"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_and_compression_gives_a_number(name, compression):
    if (name, compression) == ("lr", "mixed_dim"):
        with pytest.raises(ConfigError):
            MODELS[name](tables=TablesConfig(compression=compression))
        return
    found = counted(MODELS[name](tables=TablesConfig(compression=compression)))
    # The dot products of matrix factorization are sums, not products of matrices.
    assert found.flops > 0 or name == "mf"
    assert found.activations_bytes > 0
    assert found.forward_flops <= found.flops
    if compression == "mixed_dim":
        assert found.flops > counted(MODELS[name]()).flops


def test_what_is_kept_for_the_backward_pass():
    # The inputs of four layers, the vectors, and what the interaction makes of them.
    found = counted(DLRMConfig(dim=16, bottom=(100,), top=(200,))).activations_bytes
    inputs = N + 100 + 16 + (16 + 6) + 200
    assert 4 * inputs <= found <= 4 * (3 * inputs + 2 * 4 * 16)
