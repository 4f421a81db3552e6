"""What makes requests cheap: layouts that are known, one timer for all, a queue without locks."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from dlrm import Predictor
from dlrm.serving.batcher import Batcher
from dlrm.serving.deadlines import Deadlines
from dlrm.serving.limits import Limits, RefusalError
from dlrm.serving.model import BackEnd, Model
from dlrm.serving.protocol import encode_infer, read_infer

LIMITS = Limits(rows=50)


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    back_end = BackEnd(device="cpu")
    return Model("m", "3", Predictor.open(folder / "visits", "cpu"), back_end, 4)


def request(model: Model, rows: int, seed: int, **fields) -> tuple[bytes, str]:
    """Return the body of a request, and how long its JSON is."""
    rng, schema = np.random.default_rng(seed), model.predictor.schema
    dense = rng.normal(size=(rows, len(schema.dense))).astype(np.float32)
    sizes = {table.name: table.num_embeddings for table in schema.tables}
    ids = np.stack(
        [rng.integers(0, sizes[one.table], rows) for one in schema.one_hot_features], axis=1
    )
    inputs = [
        {
            "name": name,
            "datatype": kind,
            "shape": list(array.shape),
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, kind, array in (("dense", "FP32", dense), ("ids", "INT64", ids))
    ]
    fields = {"inputs": inputs, "parameters": {"binary_data_output": True}, **fields}
    head = json.dumps(fields).encode()
    return head + dense.tobytes() + ids.tobytes(), str(len(head))


def read(model: Model, body: bytes, length: str):
    return read_infer(body, length, model.named, model.signature, LIMITS)


@pytest.mark.parametrize("rows", [1, 3, 50])
@pytest.mark.parametrize("wanted", [["scores"], ["logits", "scores"]])
def test_a_request_that_is_known_is_read_and_answered_alike(model, rows, wanted):
    outputs = [{"name": name, "parameters": {"binary_data": True}} for name in wanted]
    for seed in range(3):
        model.signature.layouts.clear()
        body, length = request(model, rows, seed, outputs=outputs)
        first, _ = read(model, body, length)
        assert len(model.signature.layouts) == 1
        other, _ = request(model, rows, seed + 9, outputs=outputs)
        read(model, other, length)
        again, answer = read(model, body, length)
        assert len(model.signature.layouts) == 1
        for one, two in ((first.dense, again.dense), (first.ids, again.ids)):
            np.testing.assert_array_equal(one, two)
            assert one.dtype == two.dtype
            assert one.flags.writeable
            assert two.flags.writeable
        values = dict.fromkeys(wanted, np.arange(rows, dtype=np.float32)[:, None])
        expected = encode_infer(model.named, values, dict.fromkeys(wanted, True))
        assert answer(values) == expected


def test_what_differs_is_not_taken_for_what_is_known(model):
    model.signature.layouts.clear()
    body, length = request(model, 2, 0)
    read(model, body, length)
    for wrong in (body[:-1], body + b"\0"):
        with pytest.raises(RefusalError):
            read(model, wrong, length)
    # An id is that of its request.
    for name in ("7", "8"):
        named, length = request(model, 2, 0, id=name)
        _, answer = read(model, named, length)
        headers, text = answer(dict.fromkeys(("scores", "logits"), np.ones((2, 1), np.float32)))
        head = json.loads(text[: int(dict(headers)["inference-header-content-length"])])
        assert head["id"] == name
    assert len(model.signature.layouts) == 1
    for number in range(300):
        read(model, *request(model, 1, 0, parameters={"binary_data_output": True, "n": number}))
    assert len(model.signature.layouts) <= 256


def test_a_number_that_is_not_finite_fails_its_request_alone(model):
    body, length = request(model, 2, 0)
    read(model, body, length)
    wrong = bytearray(body)
    wrong[int(length) : int(length) + 4] = np.float32(np.nan).tobytes()

    async def ask():
        batcher = Batcher(Limits(delay_s=0.2))
        try:
            bodies = (body, bytes(wrong), body)
            asked = (batcher.outputs(model, read(model, one, length)[0]) for one in bodies)
            return await asyncio.gather(*asked, return_exceptions=True)
        finally:
            batcher.close()

    rows = model.statistics.rows
    one, error, other = asyncio.run(ask())
    assert isinstance(error, RefusalError)
    assert "dense holds a value that is no finite number" in str(error)
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    np.testing.assert_array_equal(one["scores"], other["scores"])
    assert model.statistics.rows == rows + 4


def test_the_batcher_outlives_who_leaves_while_it_waits_for_others(model):
    encoded, _ = read(model, *request(model, 1, 0))

    async def ask():
        batcher = Batcher(Limits(delay_s=0.1))
        try:
            for _ in range(2):
                leaving = asyncio.ensure_future(batcher.outputs(model, encoded))
                await asyncio.sleep(0.02)
                leaving.cancel()
                await asyncio.sleep(0.2)
            return await asyncio.wait_for(batcher.outputs(model, encoded), 20)
        finally:
            batcher.close()

    assert asyncio.run(ask())["scores"].shape == (1, 1)
    assert model.statistics.pending == 0


def test_each_has_its_time_and_no_more():
    async def work(deadlines: Deadlines, seconds: float, unlimited: bool = False) -> str:
        task = deadlines.begin()
        try:
            if unlimited:
                assert not deadlines.end(task)
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if not deadlines.end(task):
                raise
            assert task.cancelling() == 0
            return "late"
        finally:
            deadlines.end(task)
        return "done"

    async def all_of_it():
        deadlines = Deadlines(0.3)
        first = [work(deadlines, 0), work(deadlines, 5), work(deadlines, 0.5, True)]
        later = asyncio.ensure_future(asyncio.gather(*first))
        await asyncio.sleep(0.15)
        began = asyncio.get_running_loop().time()
        assert await asyncio.gather(work(deadlines, 5), work(deadlines, 0.1)) == ["late", "done"]
        assert 0.29 < asyncio.get_running_loop().time() - began < 3
        assert await later == ["done", "late", "done"]
        # Nothing is left, and it begins anew; who is cancelled by others is not late.
        foreign = asyncio.ensure_future(work(deadlines, 5))
        await asyncio.sleep(0.05)
        foreign.cancel()
        with pytest.raises(asyncio.CancelledError):
            await foreign
        assert await work(deadlines, 5) == "late"

    asyncio.run(all_of_it())
