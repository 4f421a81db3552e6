"""A whole DLRM in one call: the bits of its parts, one after the other."""

import pytest
import torch
from torch import Tensor

from dlrm.batch import Batch
from dlrm.errors import IdError
from dlrm.models.dlrm import DLRM, DLRMConfig
from dlrm.nn.embedding import materialize
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.ops import cpu, ways
from dlrm.ops import dlrm as whole
from dlrm.ops.choice import choices
from dlrm.ops.cpu import library
from dlrm.ops.storage import Storage
from dlrm.schema import Schema

SCHEMA = Schema.one_hot(5, (40, 3, 500))


def model(storage: Storage, precision: ComputeDtype, *, self_interaction: bool = False) -> DLRM:
    torch.manual_seed(0)
    config = DLRMConfig(
        dim=6,
        bottom=(33, 17),
        top=(40, 9),
        self_interaction=self_interaction,
        tables=TablesConfig(storage=storage),
    )
    return materialize(config.build(SCHEMA, precision))


def drawn(samples: int) -> Batch:
    generator = torch.Generator().manual_seed(samples)
    ids = [torch.randint(n, (samples,), generator=generator) for n in (40, 3, 500)]
    labels = torch.zeros(samples, 1)
    return Batch(
        dense=torch.randn(samples, 5, generator=generator), ids=torch.stack(ids, 1), labels=labels
    )


def trained(net: DLRM, samples: int) -> list[Tensor]:
    """Logits and gradients of a batch."""
    batch = drawn(samples)
    logits = net(batch)
    (logits * torch.arange(1.0, samples + 1)[:, None]).mean().backward()
    gradients = [p.grad.to_dense() for p in net.parameters() if p.grad is not None]
    return [logits.detach(), *gradients]


@pytest.fixture
def avx512() -> None:
    reason = cpu.use("avx512")
    if reason is not None or not library.native.multiplies_bf16():
        pytest.skip(reason or "this CPU has no AVX512-BF16")


@pytest.mark.usefixtures("avx512")
@pytest.mark.parametrize("self_interaction", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("storage", ["fp32", "bf16"])
@pytest.mark.parametrize("samples", [1, 7, 130, 2100])
def test_at_once_gives_the_bits_of_the_parts(samples, storage, precision, self_interaction):
    for threads in (1, 3):
        torch.set_num_threads(threads)
        at_once = trained(model(storage, precision, self_interaction=self_interaction), samples)
        parts = model(storage, precision, self_interaction=self_interaction)
        called = []
        parts.interaction.register_forward_hook(lambda *_, called=called: called.append(1))
        assert all(map(torch.equal, at_once, trained(parts, samples)))
        assert called  # a module that somebody watches is called
        assert len(at_once) == 1 + len(list(parts.parameters()))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("samples", [1, 33, 600])
def test_every_instruction_set_gives_the_bits_of_its_parts(samples, precision, monkeypatch):
    if precision == "bf16" and not library.native.multiplies_bf16():
        pytest.skip("this CPU has no AVX512-BF16")
    # Ours, which is not the default everywhere.
    for module in (ways, whole):
        monkeypatch.setattr(module, "chosen_for", lambda *_, **__: precision)
    at_once = trained(model("fp32", precision), samples)
    parts = model("fp32", precision)
    parts.interaction.register_forward_hook(lambda *_: None)
    assert all(map(torch.equal, at_once, trained(parts, samples)))


@pytest.mark.usefixtures("avx512")
@pytest.mark.parametrize("samples", [1, 70, 2100])
def test_at_once_in_tiles_gives_the_bits_of_the_parts_too(samples, monkeypatch):
    monkeypatch.setattr(choices, "_chosen", {})
    monkeypatch.setattr(ways, "_ways", ways._ways.__wrapped__)
    monkeypatch.setenv("DLRM_KERNELS", "tiles")
    at_once = trained(model("fp32", "bf16"), samples)
    assert {way.split()[0] for way in choices.used().values()} == {"amx"}
    parts = model("fp32", "bf16")
    parts.interaction.register_forward_hook(lambda *_: None)
    assert all(map(torch.equal, at_once, trained(parts, samples)))


@pytest.mark.usefixtures("avx512")
def test_an_id_out_of_range_names_its_feature_and_is_not_read():
    net = model("fp32", "fp32")
    batch = drawn(200)
    batch.ids[150, 1] = 2**30
    with pytest.raises(IdError, match=f"C2: id {2**30} is out of range"):
        net(batch)
