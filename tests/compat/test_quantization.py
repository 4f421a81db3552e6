"""Quantised inference: the original's printed accuracies, and the arithmetic of 8-bit layers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.compat.quantization import QuantizedMLP
from dlrm.nn.mlp import MLP

from .session import ok, run

ARCH = [
    "--arch-sparse-feature-size=8",
    "--arch-embedding-size=500-300-100-7",
    "--arch-mlp-bot=13-16-8",
    "--arch-mlp-top=16-1",
]
SAMPLES = [
    "--mini-batch-size=128",
    "--num-batches=20",
    "--num-indices-per-lookup=4",
    "--round-targets=True",
    "--numpy-rand-seed=3",
    "--inference-only",
]


@pytest.mark.parametrize(
    ("flags", "sizes", "accuracy"),
    [
        # Accuracies and sizes as commit 090956e of the original prints them with torch 2.13.0.
        ([], [], "49.570"),
        (["--quantize-emb-with-bit=8"], [8000, 4800, 1600, 112], "49.570"),
        (["--quantize-emb-with-bit=4"], [4000, 2400, 800, 56], "49.688"),
        (["--quantize-mlp-with-bit=8"], [], "49.609"),
        (["--quantize-mlp-with-bit=16"], [], "49.570"),
        (
            [
                "--weighted-pooling=learned",
                "--quantize-mlp-with-bit=8",
                "--quantize-emb-with-bit=4",
            ],
            [4000, 2400, 800, 56],
            "49.766",
        ),
    ],
)
def test_accuracy_is_the_originals(flags: list[str], sizes: list[int], accuracy: str):
    assert ok(*ARCH, *SAMPLES, *flags).lines == [
        *(f"quantized emb sizes: {size} {size}" for size in sizes),
        "time/loss/accuracy (if enabled):",
        "Testing for inference only",
        f" accuracy {accuracy} %, best {accuracy} %",
    ]


def whole_numbers(mlp: MLP, x: np.ndarray) -> np.ndarray:
    """The arithmetic of dynamic quantisation of one layer, in Python's integers."""
    (layer,) = mlp.linears()
    weight = layer.weight.detach().numpy()
    scale = float(np.abs(weight).max()) / 127.5
    codes = np.clip(np.round(weight / np.float32(scale)), -128, 127).astype(int)
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    step = (high - low) / 127
    zero = round(-low / step)
    inputs = np.clip(np.round(x / step).astype(int) + zero, 0, 127) - zero
    x = (inputs @ codes.T) * scale * step + layer.bias.detach().numpy()
    return np.maximum(x, 0) if mlp.relu_last else x


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), relu_last=st.booleans(), shift=st.sampled_from([-3, 0, 3]))
def test_layers_of_8_bits(seed: int, relu_last: bool, shift: int):
    torch.manual_seed(seed)
    mlp = MLP([7, 5], relu_last=relu_last)
    x = torch.randn(20, 7) + shift
    found = QuantizedMLP(mlp, 8)(x).numpy()
    expected = whole_numbers(mlp, x.double().numpy())
    # A number at the middle between two may be rounded the other way.
    assert np.mean(np.abs(found - expected) > 1e-4) < 0.06
    deep = MLP([7, 9, 5], relu_last=relu_last)
    plain, found = deep(x).detach().numpy(), QuantizedMLP(deep, 8)(x).numpy()
    differs = np.abs(found - plain).max()
    # Where no ReLU lets anything through, there is nothing to round.
    assert differs > 0 or not plain.any()
    assert differs < 0.1 * max(1.0, np.abs(plain).max())


def test_a_batch_of_zeros():
    mlp = MLP([3, 4], relu_last=False)
    found = QuantizedMLP(mlp, 8)(torch.zeros(2, 3))
    assert torch.equal(found, mlp.linears()[0].bias.detach().expand(2, 4))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--quantize-emb-with-bit=16", "--inference-only"], "-emb-with-bit=16: choose one of 4"),
        (["--quantize-mlp-with-bit=4", "--inference-only"], "-mlp-with-bit=4: choose one of 8"),
        (["--quantize-emb-with-bit=8"], "is for --inference-only: training needs all bits"),
        (["--quantize-emb-with-bit=8", "--inference-only", "--qr-flag"], "and --qr-flag"),
        (["--quantize-emb-with-bit=8", "--inference-only", "--md-flag"], "and --md-flag"),
    ],
)
def test_bits_without_a_meaning(flags: list[str], said: str):
    result = run(*flags)
    assert result.status == 1
    assert said in result.err
