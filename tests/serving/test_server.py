"""The server as its clients see it."""

import json
import random
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import polars as pl
import pytest
import tritonclient.http as triton
from served import Served, serving

from dlrm import Predictor
from dlrm.cli import main
from dlrm.commands.predict import predict
from dlrm.errors import ConfigError
from dlrm.serving.model import BackEnd
from dlrm.serving.server import Address

ROW = {"city_id": 3, "device": "phone", "price": 1.5}


@pytest.fixture(scope="module")
def visits(folder: Path):
    with serving(folder / "visits", f"other={folder / 'demo'}", folder / "two") as served:
        yield served


def rows_of(folder: Path, name: str = "tomorrow.csv") -> pl.DataFrame:
    return pl.read_csv(folder / name)


def test_scores_are_those_of_predict_bit_for_bit(visits, folder, tmp_path):
    predict(folder / "visits", [folder / "tomorrow.csv"], out=tmp_path / "s.parquet")
    expected = pl.read_parquet(tmp_path / "s.parquet")["score"].to_numpy()
    rows = rows_of(folder).to_dicts()
    status, answer = visits.json("POST", "/score", rows)
    assert (status, answer["model"], answer["version"]) == (200, "visits", "1")
    assert np.array_equal(np.array(answer["scores"], np.float32), expected)
    # One by one at once, so that batches are of any size.
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda row: visits.json("POST", "/score/visits", row), rows[:100]))
    scores = [answer["score"] for _, answer in answers]
    assert np.array_equal(np.array(scores, np.float32), expected[:100])


def test_several_labels_and_lists(visits, folder, tmp_path):
    predict(folder / "two", [folder / "lists.csv"], out=tmp_path / "s.parquet")
    expected = pl.read_parquet(tmp_path / "s.parquet")
    rows = rows_of(folder, "lists.csv").to_dicts()
    status, answer = visits.json("POST", "/score/two", {"rows": rows})
    assert status == 200
    for label in ("clicked", "bought"):
        scores = np.array([score[label] for score in answer["scores"]], np.float32)
        assert np.array_equal(scores, expected[f"score_{label}"].to_numpy())
    frame = rows_of(folder, "lists.csv")
    batch = Predictor.open(folder / "two").encode(frame)
    assert batch.lists is not None
    client = triton.InferenceServerClient(visits.address)
    outputs = infer(client, "two", tensors_of(batch))
    assert np.array_equal(outputs.as_numpy("scores"), expected.to_numpy())


def test_an_ensemble_and_a_regression(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    little = ["--max-steps", "2", "--no-baseline", "--model.top", "8", "--model.dim", "4"]
    train = ["train", str(folder / "visits.csv"), *little, "--label"]
    assert main([*train, "bought", "--ensemble", "2", "--run", "several"]) == 0
    assert main([*train, "price", "--task", "regression", "--run", "numbers"]) == 0
    with serving("several", "numbers") as served:
        for name in ("several", "numbers"):
            frame = rows_of(folder, "visits.csv")
            expected = Predictor.open(name).scores(frame)[:, 0]
            status, answer = served.json("POST", f"/score/{name}", frame.head(50).to_dicts())
            assert status == 200
            assert np.array_equal(np.array(answer["scores"], np.float32), expected[:50])
            assert served.json("POST", f"/v2/repository/models/{name}/load")[0] == 200
            assert served.repository.versions(name) == ["1"]


def tensors_of(batch) -> dict[str, np.ndarray]:
    tensors = {"dense": batch.dense.numpy(), "ids": batch.ids.numpy().astype(np.int64)}
    if batch.lists is not None:
        tensors["values"] = batch.lists.values.numpy().astype(np.int64)
        tensors["offsets"] = batch.lists.offsets.numpy()
    return {name: tensor for name, tensor in tensors.items() if tensor.shape[-1]}


def infer(client, name, tensors, binary=True, **options) -> Any:
    inputs = []
    for key, tensor in tensors.items():
        kind = "FP32" if tensor.dtype == np.float32 else "INT64"
        inputs.append(triton.InferInput(key, tensor.shape, kind))
        inputs[-1].set_data_from_numpy(np.ascontiguousarray(tensor), binary_data=binary)
    return client.infer(name, inputs, **options)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_triton_s_client_works_unchanged(visits, folder, binary, compression):
    client = triton.InferenceServerClient(visits.address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("visits")
    assert client.is_model_ready("visits", "1")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "dlrm"
    metadata = client.get_model_metadata("visits")
    assert metadata["versions"] == ["1"]
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["dense", "ids"]
    assert client.get_model_config("visits", "1")["max_batch_size"] == 16384
    assert {model["name"] for model in client.get_model_repository_index()} == {
        *("visits", "other", "two")
    }
    predictor = Predictor.open(folder / "visits")
    batch = predictor.encode(rows_of(folder))
    result = infer(
        client,
        "visits",
        tensors_of(batch),
        binary=binary,
        request_id="7",
        outputs=[triton.InferRequestedOutput("logits", binary_data=binary)],
        request_compression_algorithm=compression,
        model_version="1",
    )
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == (
        *("7", "visits", "1"),
    )
    assert np.array_equal(result.as_numpy("logits"), predictor.logits(batch).numpy())
    assert result.as_numpy("scores") is None
    both = infer(client, "visits", tensors_of(batch))
    assert np.array_equal(both.as_numpy("scores"), predictor.scores(rows_of(folder)))
    counts = client.get_inference_statistics("visits")["model_stats"][0]
    assert counts["inference_stats"]["success"]["count"] >= 2
    assert len(client.get_inference_statistics()["model_stats"]) == 3
    wrong = {**tensors_of(batch), "ids": tensors_of(batch)["ids"] + 10_000}
    with pytest.raises(triton.InferenceServerException, match="is out of range"):
        infer(client, "visits", wrong)
    client.unload_model("other")
    assert not client.is_server_ready()
    assert client.is_server_live()
    client.load_model("other")
    assert client.is_server_ready()
    client.close()


def test_all_that_triton_s_client_can_ask_has_an_answer_or_a_reason(visits, folder):
    predictor = Predictor.open(folder / "visits")
    tensors = tensors_of(predictor.encode(rows_of(folder)))
    expected = predictor.scores(rows_of(folder))
    refused = triton.InferenceServerException
    with triton.InferenceServerClient(visits.address, concurrency=2) as client:
        assert client.get_server_metadata()["extensions"][0] == "binary_tensor_data"
        config = client.get_model_config("visits")
        assert [tensor["name"] for tensor in config["input"]] == ["dense", "ids"]
        assert not client.is_model_ready("visits", "9")
        # What concerns schedulers of models with a state, or of several priorities, has no meaning.
        parameters = {"sequence_id": 5, "sequence_start": True, "sequence_end": True, "priority": 2}
        options = {**parameters, "timeout": 1_000_000, "parameters": {"mine": "x"}}
        answer = infer(client, "visits", tensors, **options, query_params={"a": "b"})
        assert np.array_equal(answer.as_numpy("scores"), expected)
        for algorithm in ("gzip", "deflate"):
            both: dict[str, Any] = {
                "request_compression_algorithm": algorithm,
                "response_compression_algorithm": algorithm,
            }
            answer = infer(client, "visits", tensors, **both)
            assert np.array_equal(answer.as_numpy("scores"), expected)
        inputs = []
        for name, tensor in tensors.items():
            kind = "FP32" if tensor.dtype == np.float32 else "INT64"
            inputs.append(triton.InferInput(name, tensor.shape, kind))
            inputs[-1].set_data_from_numpy(np.ascontiguousarray(tensor))
        waiting = [client.async_infer("visits", inputs, request_id=str(k)) for k in range(4)]
        for number, one in enumerate(waiting):
            answer = one.get_result()
            assert answer.get_response()["id"] == str(number)
            scores = answer.as_numpy("scores")
            assert scores is not None
            assert np.array_equal(scores, expected)
        for output, message in (
            (triton.InferRequestedOutput("scores", class_count=2), "classifications"),
            (triton.InferRequestedOutput("nothing"), 'unknown output "nothing"'),
        ):
            with pytest.raises(refused, match=message):
                client.infer("visits", inputs, outputs=[output])
        shared = triton.InferRequestedOutput("scores")
        shared.set_shared_memory("region", 64)
        with pytest.raises(refused, match="shared memory"):
            client.infer("visits", inputs, outputs=[shared])
        inputs[0].set_shared_memory("region", 64)
        with pytest.raises(refused, match="shared memory is not read"):
            client.infer("visits", inputs)
        assert client.get_trace_settings() == client.get_trace_settings("visits")
        assert client.get_trace_settings()["trace_level"] == ["OFF"]
        assert client.get_log_settings()["log_error"] is True
        for change in (
            lambda: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
            lambda: client.update_trace_settings("visits", settings={"trace_rate": "1"}),
            lambda: client.update_log_settings({"log_info": True}),
        ):
            with pytest.raises(refused, match="this path takes GET"):
                change()
        with pytest.raises(refused, match="there is no such model"):
            client.get_trace_settings("nobody")
        assert client.get_system_shared_memory_status() == []
        assert client.get_cuda_shared_memory_status() == []
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory("region")
        for ask in (
            lambda: client.register_system_shared_memory("region", "/key", 64),
            lambda: client.register_cuda_shared_memory("region", b"handle", 0, 64),
            lambda: client.get_system_shared_memory_status("region"),
        ):
            with pytest.raises(refused, match="shared memory is not read"):
                ask()
        with pytest.raises(refused, match="there are no parameters"):
            client.load_model("visits", config='{"name": "visits"}')
        client.unload_model("other", unload_dependents=True)
        states = {one["name"]: one["state"] for one in client.get_model_repository_index()}
        assert (states["other"], states["visits"]) == ("UNAVAILABLE", "READY")
        client.load_model("other")


def test_what_is_wrong_with_rows_is_said(visits):
    for rows, message in (
        ({**ROW, "price": "cheap"}, "the request, row 1, column price"),
        ([ROW, {**ROW, "price": "cheap"}], "row 2, column price"),
        ({"cty": 3, "prize": 1.5}, "none of the columns that the model reads: city_id, device"),
        ([ROW, {}], "row 2 has none of the columns"),
        ({**ROW, "device": {"a": 1}}, "column device"),
        ([], "no rows"),
        ([1], "a row as a JSON object"),
        ({"rows": [ROW], "more": 1}, "nothing else"),
    ):
        status, answer = visits.json("POST", "/score", rows)
        assert status == 400, rows
        assert message in answer["error"]
    # A value that training never saw, a missing one and unknown columns are none of these.
    status, answer = visits.json("POST", "/score", {**ROW, "device": "?", "price": None, "x": []})
    assert status == 200
    assert 0 < answer["score"] < 1
    # A column that is left out is missing, too.
    assert visits.json("POST", "/score", {"city_id": 3, "device": "?"})[1] == answer


def test_paths_and_methods(visits):
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/visits/versions/9", 404),
        ("GET", "/v2/models/visits/nothing", 404),
        ("GET", "/v2/models/..%2f..%2fetc%2fpasswd", 404),
        ("POST", "/v2/repository/models/..%2fdemo/load", 404),
        ("GET", "/score", 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/models/visits/versions/1/stats", 200),
    ):
        assert visits.call(method, path)[0] == status, path
    load = {"parameters": {"file:1/model.onnx": "AAAA"}}
    status, answer = visits.json("POST", "/v2/repository/models/visits/load", load)
    assert status == 400
    assert "no parameters" in answer["error"]


def test_openapi_and_metrics(visits):
    visits.json("POST", "/score", ROW)
    status, document = visits.json("GET", "/openapi.json")
    assert status == 200
    score = document["paths"]["/score"]["post"]["requestBody"]["content"]["application/json"]
    assert set(score["schema"]["oneOf"][0]["properties"]) == set(ROW)
    paths = {path: how for path, how in document["paths"].items() if "unload" not in path}
    for path, operations in paths.items():
        for method in operations:
            assert visits.call(method.upper(), path, b"{}")[0] not in (404, 405, 500), path
    text = visits.call("GET", "/metrics")[1].decode()
    line = next(x for x in text.splitlines() if x.startswith("nv_inference_request_success{model="))
    assert line.startswith('nv_inference_request_success{model="visits",version="1"} ')
    assert int(line.split()[-1]) >= 1


def test_limits_have_their_status(folder):
    with serving(folder / "visits", body_bytes=2000, rows=3) as served:
        status, answer = served.json("POST", "/score", [ROW] * 4)
        assert (status, answer["error"]) == (
            *(413, "the request has 4 rows, at most 3 are taken: send several"),
        )
        assert served.call("POST", "/score", b"x" * 3000)[0] == 413
        chunked = iter([b"x" * 500] * 6)
        assert served.call("POST", "/score", chunked)[0] == 413
        assert served.json("POST", "/score", [ROW] * 3)[0] == 200


def test_a_full_queue_and_time_have_their_status(folder):
    with serving(folder / "visits", queue=1, timeout_s=4.0) as served:
        predictor = served.repository.find("visits").predictor
        asked, go_on = threading.Event(), threading.Event()
        logits = predictor.logits

        def slow(batch):
            asked.set()
            go_on.wait(30)
            return logits(batch)

        predictor.logits = slow
        with ThreadPoolExecutor(3) as pool:
            first = pool.submit(served.json, "POST", "/score", ROW)
            assert asked.wait(5)
            second = pool.submit(served.json, "POST", "/score", ROW)
            while served.server.waiting == 0:
                time.sleep(0.01)
            status, answer = served.json("POST", "/score", ROW)
            assert status == 429
            assert "1 requests wait" in answer["error"]
            assert served.call("GET", "/v2/health/live")[0] == 200
            assert first.result()[0] == second.result()[0] == 504
            # What nobody waits for takes no place in the queue.
            assert served.json("POST", "/score", ROW)[0] == 504
        go_on.set()
        assert served.json("POST", "/score", ROW)[0] == 200
        failures = served.repository.find("visits").statistics.failures
        assert failures == {"TOO_MANY_REQUESTS": 1, "GATEWAY_TIMEOUT": 3}
        # A client that sends its body too slowly.
        with socket.create_connection(("127.0.0.1", served.server.port)) as client:
            client.sendall(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            client.settimeout(30)
            assert client.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_token_is_asked_for(folder):
    with serving(folder / "visits", token="s3cret") as served:
        assert served.call("GET", "/v2/health/ready")[0] == 200
        for path in ("/v2", "/metrics", "/v2/models/visits", "/nothing"):
            assert served.call("GET", path)[0] == 401
        for given in ("Bearer wrong", "s3cret", "Bearer s3cret "):
            status = served.json("POST", "/score", ROW, authorization=given)[0]
            assert status == (200 if given == "Bearer s3cret " else 401), given
        assert served.json("POST", "/score", ROW, authorization="Bearer s3cret")[0] == 200


def test_a_newer_checkpoint_is_taken_without_losing_a_request(folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folder / "visits", run)
    with serving(f"m={run}") as served:
        before = served.json("POST", "/score", ROW)[1]
        assert served.json("POST", "/v2/repository/models/m/load")[0] == 200
        assert served.repository.versions("m") == ["1"], "nothing is newer"
        stop, answers = threading.Event(), []

        def ask():
            while not stop.is_set():
                answers.append(served.json("POST", "/score", ROW))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        visits = str(folder / "visits.csv")
        words = ["train", visits, "--label", "bought", "--no-baseline", "--epochs", "1"]
        assert main([*words, "--seed", "5", "--run", str(tmp_path / "new")]) == 0
        shutil.rmtree(run)
        shutil.copytree(tmp_path / "new", run)
        status, _ = served.json("POST", "/v2/repository/models/m/load")
        time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join()
        assert status == 200
        after = served.json("POST", "/score", ROW)[1]
        assert (after["version"], after["score"] != before["score"]) == ("2", True)
        # Each answer is wholly of one version.
        assert {status for status, _ in answers} == {200}
        assert all(answer in (before, after) for _, answer in answers)
        # A run that went leaves what was loaded.
        shutil.rmtree(run)
        status, answer = served.json("POST", "/v2/repository/models/m/load")
        assert status == 409
        assert str(run) not in answer["error"]
        assert served.json("POST", "/score", ROW)[1] == after


def test_versions_of_a_name(folder, tmp_path):
    shutil.copytree(folder / "visits", tmp_path / "b")
    with serving(f"m={folder / 'visits'}", f"m={tmp_path / 'b'}") as served:
        assert served.json("GET", "/v2/models/m")[1]["versions"] == ["1", "2"]
        assert served.json("POST", "/score", ROW)[1]["version"] == "2"
        assert served.call("GET", "/v2/models/m/versions/1/ready")[0] == 200
        assert len(served.json("GET", "/v2/models/m/stats")[1]["model_stats"]) == 2


@pytest.mark.parametrize(
    "back_end", [BackEnd(tables="int8"), BackEnd(runtime="torch"), BackEnd(runtime="onnx")]
)
def test_other_back_ends_answer_alike(folder, back_end):
    if back_end.runtime == "onnx":
        pytest.importorskip("onnxruntime")
    expected = Predictor.open(folder / "visits").scores(rows_of(folder))[:, 0]
    with serving(folder / "visits", back_end=back_end) as served:
        _, answer = served.json("POST", "/score", rows_of(folder).to_dicts())
        np.testing.assert_allclose(answer["scores"], expected, atol=0.01)


def test_malformed_bodies_never_fail_the_server(visits: Served):
    random.seed(1)
    tensors = [
        {"name": "dense", "datatype": "FP32", "shape": [1, 1], "data": [0.5]},
        {"name": "ids", "datatype": "INT64", "shape": [1, 2], "data": [1, 1]},
    ]
    good = {
        "/score": json.dumps([ROW]).encode(),
        "/score/two": json.dumps({"price": 1, "tags": ["a", None]}).encode(),
        "/v2/models/visits/infer": json.dumps({"inputs": tensors}).encode(),
        "/v2/repository/index": b'{"ready": true}',
    }
    odd = [b"1e999", b"-1", b"[]", b"{}", b"null", b'"', b"9" * 30, b"NaN", b"\xff", b"true"]
    statuses = set()
    for _ in range(1500):
        path, body = random.choice(list(good.items()))
        mutated = bytearray(body)
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(mutated) + 1)
            mutated[at : at + random.randint(0, 3)] = random.choice(
                [*odd, bytes([random.randrange(256)])]
            )
        headers = {}
        if random.random() < 0.2:
            headers["inference_header_content_length"] = random.choice(["1", "-1", "x", "99999"])
        if random.random() < 0.05:
            headers["content_encoding"] = random.choice(["gzip", "deflate", "br"])
        status, _ = visits.call("POST", path, bytes(mutated), **headers)
        statuses.add(status)
        assert status < 500, (path, bytes(mutated), headers)
    assert {200, 400, 415} <= statuses
    assert visits.json("POST", "/score", ROW)[0] == 200


def test_clients_that_vanish_leave_nothing_behind(folder, caplog):
    body = json.dumps(ROW).encode()
    whole = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with serving(folder / "visits") as served:
        statistics = served.repository.find("visits").statistics
        for k in range(200):
            with socket.create_connection(("127.0.0.1", served.server.port)) as client:
                client.sendall(whole[: k % len(whole) + 1])
                if k % 2:
                    # Reset, instead of an orderly end.
                    linger = struct.pack("ii", 1, 0)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert served.json("POST", "/score", ROW)[0] == 200
        assert set(statistics.failures) <= {"BAD_REQUEST"}
        assert statistics.pending == 0
    assert "failed" not in caplog.text


def certificate(folder: Path) -> tuple[Path, Path]:
    """Return a certificate of 127.0.0.1, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate")
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([openssl, *words], check=True, capture_output=True)
    return cert, key


def test_half_a_head_does_not_hold_up_the_end(folder):
    with serving(folder / "visits", timeout_s=0.2) as served:
        client = socket.create_connection(("127.0.0.1", served.server.port))
        client.sendall(b"GET /v2 HTTP/1.1\r\nho")
        assert served.call("GET", "/v2")[0] == 200
    # The server has ended, and not because the client was cut off by a limit of its own.
    client.setblocking(False)
    with client, pytest.raises(BlockingIOError):
        client.recv(1)


def test_tls(folder, tmp_path):
    cert, key = certificate(tmp_path)
    with serving(folder / "visits", address=Address(port=0, tls_cert=cert, tls_key=key)) as served:
        context = ssl.create_default_context(cafile=str(cert))
        url = f"{served.server.url}/v2"
        assert url.startswith("https://")
        with urlopen(url, timeout=30, context=context) as response:
            assert response.status == 200


def test_a_port_is_not_shared(visits):
    with pytest.raises(ConfigError, match="give another --port"):
        Address(port=visits.server.port).checked()
