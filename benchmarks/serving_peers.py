"""A run behind FastAPI or LitServe, as people write it: `python serving_peers.py PEER RUN PORT`.

    POST /predict {"dense": [[0.5, ...]], "ids": [[1, ...]]} -> {"scores": [[0.08]]}

pip install --no-deps --target peers fastapi starlette pydantic pydantic-core annotated-types
annotated-doc typing-inspection anyio idna sniffio uvicorn h11 httptools uvloop click litserve pyzmq
python-multipart opentelemetry-api, and `peers` in PYTHONPATH; --no-deps keeps LitServe from
bringing another torch.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlrm.data.encoded import Encoded
from dlrm.training.predictor import Predictor

try:
    from litserve import LitAPI  # pyright: ignore[reportMissingImports]
except ImportError:
    LitAPI = object

_FASTAPI = ("fastapi", "uvicorn", "httptools", "pydantic", "opentelemetry")
NEEDED = {"fastapi": _FASTAPI, "litserve": (*_FASTAPI, "litserve", "zmq")}
"""Peer -> what must be there to import."""


def missing(peer: str) -> str | None:
    """Return why a peer cannot be measured; None where it can."""
    gone = [name for name in NEEDED[peer] if find_spec(name) is None]
    return f"{peer} is not installed ({', '.join(gone)})" if gone else None


class Model:
    """A run in eager PyTorch on one thread, of lists in and lists out."""

    def __init__(self, run: Path):
        torch.set_num_threads(1)
        self._predictor = Predictor.open(run, "cpu")

    def scores(self, dense: Sequence[Sequence[float]], ids: Sequence[Sequence[int]]) -> list[Any]:
        encoded = Encoded(np.array(dense, np.float32), np.array(ids, np.int32))
        return self._predictor.scores_of(encoded).tolist()


def fastapi(run: Path, port: int) -> None:
    import uvicorn  # pyright: ignore[reportMissingImports]
    from fastapi import FastAPI  # pyright: ignore[reportMissingImports]
    from pydantic import create_model  # pyright: ignore[reportMissingImports]

    # Made here, because this module is imported where neither is installed.
    Rows = create_model("Rows", dense=(list[list[float]], ...), ids=(list[list[int]], ...))
    Scores = create_model("Scores", scores=(list[list[float]], ...))
    app, model = FastAPI(), Model(run)

    async def predict(rows: Any) -> Any:
        return Scores(scores=model.scores(rows.dense, rows.ids))

    predict.__annotations__ = {"rows": Rows, "return": Scores}
    app.post("/predict")(predict)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


class Api(LitAPI):  # pyright: ignore[reportGeneralTypeIssues]
    """What LitServe asks of a model; its workers are processes that import this module."""

    def __init__(self, run: Path):
        super().__init__()
        self._run = run

    def setup(self, device: str) -> None:
        self._model = Model(self._run)

    def predict(self, x: Mapping[str, Any]) -> Any:
        return {"scores": self._model.scores(x["dense"], x["ids"])}


def litserve(run: Path, port: int) -> None:
    from litserve import LitServer  # pyright: ignore[reportMissingImports]

    server = LitServer(Api(run), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    {"fastapi": fastapi, "litserve": litserve}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
