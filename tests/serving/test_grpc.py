"""The protocol over gRPC, as Triton's own client sees it."""

import queue
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Served, serving
from test_server import certificate, rows_of, tensors_of
from tritonclient.grpc import model_config_pb2 as _configs
from tritonclient.grpc import service_pb2 as _protocol
from tritonclient.grpc import service_pb2_grpc

from dlrm import Predictor
from dlrm.errors import ConfigError
from dlrm.serving import grpc_messages
from dlrm.serving.limits import Limits
from dlrm.serving.model import BackEnd
from dlrm.serving.repository import Repository
from dlrm.serving.server import Address, Server

# Their messages are there only at run time.
PROTOCOL: Any = _protocol
CONFIGS: Any = _configs
GRPC = Address(port=0, grpc_port=0)
KINDS = {"float32": "FP32", "float64": "FP64", "int32": "INT32", "int64": "INT64", "int8": "INT8"}


def inputs_of(tensors: dict[str, np.ndarray], kind: Any = triton) -> list[Any]:
    inputs = []
    for name, tensor in tensors.items():
        inputs.append(kind.InferInput(name, list(tensor.shape), KINDS[tensor.dtype.name]))
        inputs[-1].set_data_from_numpy(np.ascontiguousarray(tensor))
    return inputs


def client_of(served: Served, **options: Any) -> Any:
    return triton.InferenceServerClient(f"127.0.0.1:{served.server.grpc_port}", **options)


@pytest.fixture(scope="module")
def served(folder: Path):
    runs = (folder / "visits", f"other={folder / 'demo'}", folder / "two")
    with serving(*runs, address=GRPC) as served:
        yield served


@pytest.fixture(scope="module")
def client(served):
    with client_of(served) as client:
        yield client


@pytest.fixture(scope="module")
def stub(served):
    with grpc.insecure_channel(f"127.0.0.1:{served.server.grpc_port}") as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def refused(call: Any, *words: Any, **options: Any) -> tuple[str, str]:
    """Return the code and the reason with which a call is refused."""
    with pytest.raises(triton.InferenceServerException) as refusal:
        call(*words, **options)
    return str(refusal.value.status()), refusal.value.message()


def test_the_messages_are_the_protocol_s():
    names = {
        "TensorMetadata": PROTOCOL.ModelMetadataResponse.TensorMetadata,
        "ModelConfig": CONFIGS.ModelConfig,
        "VersionPolicy": CONFIGS.ModelVersionPolicy,
        "AllVersions": CONFIGS.ModelVersionPolicy.All,
        "TensorConfig": CONFIGS.ModelInput,
        "OutputConfig": CONFIGS.ModelOutput,
        "DynamicBatching": CONFIGS.ModelDynamicBatching,
        "InstanceGroup": CONFIGS.ModelInstanceGroup,
        "InferTensor": PROTOCOL.ModelInferRequest.InferInputTensor,
        "RequestedOutput": PROTOCOL.ModelInferRequest.InferRequestedOutputTensor,
        "TensorContents": PROTOCOL.InferTensorContents,
        "Duration": PROTOCOL.StatisticDuration,
        "ModelIndex": PROTOCOL.RepositoryIndexResponse.ModelIndex,
        "RepositoryParameter": PROTOCOL.ModelRepositoryParameter,
    }
    for name in grpc_messages._MESSAGES:
        theirs = (names.get(name) or getattr(PROTOCOL, name)).DESCRIPTOR
        for field in grpc_messages.message(name).DESCRIPTOR.fields:
            same = theirs.fields_by_name[field.name]
            assert field.number == same.number, field.full_name
            assert (field.type, field.is_repeated) == (same.type, same.is_repeated), field.full_name
            for value in field.enum_type.values if field.enum_type else []:
                assert same.enum_type.values_by_name[value.name].number == value.number


def test_health_and_descriptions(served, client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("visits")
    assert client.is_model_ready("visits", "1")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("visits", "9")
    over_http = tritonclient.http.InferenceServerClient(served.address)
    server = client.get_server_metadata(as_json=True)
    assert server == over_http.get_server_metadata()
    for name in ("visits", "two"):
        metadata = client.get_model_metadata(name, as_json=True)
        same = over_http.get_model_metadata(name)
        for tensors in ("inputs", "outputs"):
            for tensor in metadata[tensors]:
                tensor["shape"] = [int(size) for size in tensor["shape"]]
            assert metadata[tensors] == same[tensors]
        assert (metadata["name"], metadata["versions"]) == (name, ["1"])
        config = client.get_model_config(name).config
        same = over_http.get_model_config(name)
        assert config.max_batch_size == same["max_batch_size"]
        assert config.backend == "eager"
        for tensor, described in zip(config.input, same["input"], strict=True):
            assert CONFIGS.DataType.Name(tensor.data_type) == described["data_type"]
            assert list(tensor.dims) == described["dims"]
        assert [tensor.name for tensor in config.output] == ["scores", "logits"]
        assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
    for call in (client.get_model_metadata, client.get_model_config):
        assert refused(call, "nobody")[0] == "StatusCode.NOT_FOUND"
        assert refused(call, "visits", "9")[0] == "StatusCode.NOT_FOUND"


def test_inference(served, client, folder):
    predictor = Predictor.open(folder / "visits")
    frame = rows_of(folder)
    tensors = tensors_of(predictor.encode(frame))
    result = client.infer(
        *("visits", inputs_of(tensors)),
        model_version="1",
        request_id="7",
        outputs=[triton.InferRequestedOutput("logits")],
        parameters={"mine": 3, "theirs": "x"},
        compression_algorithm="gzip",
    )
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("7", "visits", "1")
    assert [output.name for output in response.outputs] == ["logits"]
    assert np.array_equal(result.as_numpy("logits"), predictor.logits(predictor.encode(frame)))
    # Nothing named: all outputs. Other types of the same kind are taken.
    tensors = {"dense": tensors["dense"].astype(np.float64), "ids": tensors["ids"].astype("int32")}
    result = client.infer("visits", inputs_of(tensors))
    assert np.array_equal(result.as_numpy("scores"), predictor.scores(frame))
    assert result.as_numpy("logits") is not None
    counts = client.get_inference_statistics("visits", as_json=True)["model_stats"][0]
    assert int(counts["inference_stats"]["success"]["count"]) >= 2
    assert int(counts["inference_count"]) >= 2 * len(frame)
    assert len(client.get_inference_statistics().model_stats) == 3
    done: queue.Queue[Any] = queue.Queue()
    client.async_infer(
        "visits", inputs_of(tensors), lambda result, error: done.put(result or error)
    )
    assert np.array_equal(done.get(timeout=30).as_numpy("scores"), predictor.scores(frame))


def test_several_labels_and_lists(client, folder):
    predictor = Predictor.open(folder / "two")
    frame = rows_of(folder, "lists.csv")
    result = client.infer("two", inputs_of(tensors_of(predictor.encode(frame))))
    assert result.as_numpy("scores").shape == (len(frame), 2)
    assert np.array_equal(result.as_numpy("scores"), predictor.scores(frame))


def typed(name: str, tensors: dict[str, np.ndarray]) -> Any:
    """Return a request whose numbers stand in typed contents."""
    request = PROTOCOL.ModelInferRequest(model_name=name)
    for called, tensor in tensors.items():
        kind = KINDS[tensor.dtype.name]
        described = request.inputs.add(name=called, datatype=kind, shape=tensor.shape)
        numbers = getattr(
            described.contents, {"FP": "fp32_contents", "IN": "int64_contents"}[kind[:2]]
        )
        numbers.extend(tensor.ravel().tolist())
    return request


def test_typed_contents(stub, folder):
    predictor = Predictor.open(folder / "two")
    frame = rows_of(folder, "lists.csv")
    answer = stub.ModelInfer(typed("two", tensors_of(predictor.encode(frame))))
    scores = np.frombuffer(answer.raw_output_contents[0], np.float32)
    assert np.array_equal(scores.reshape(answer.outputs[0].shape), predictor.scores(frame))


@given(data=st.data())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_http_and_grpc_give_the_same_bits(served, client, stub, folder, data):
    name = data.draw(st.sampled_from(["visits", "two", "other"]))
    schema = served.repository.find(name).predictor.schema
    rows = data.draw(st.integers(1, 70))
    random = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    tables = [feature.table for feature in schema.one_hot_features]
    sizes = {table.name: table.num_embeddings for table in schema.tables}

    def ids(table: str, count: int) -> np.ndarray:
        return random.integers(0, sizes[table], count)

    tensors = {
        "dense": random.normal(size=(rows, len(schema.dense))).astype(np.float32),
        "ids": np.stack([ids(table, rows) for table in tables], 1)
        if tables
        else np.empty((rows, 0)),
    }
    if schema.list_features:
        counts = random.integers(0, 4, (rows, len(schema.list_features)))
        values = [
            ids(feature.table, counts[row, k])
            for row in range(rows)
            for k, feature in enumerate(schema.list_features)
        ]
        tensors["values"] = np.concatenate(values).astype(np.int64)
        tensors["offsets"] = np.concatenate([[0], np.cumsum(counts)])
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.shape[1:] != (0,)}
    raw = client.infer(name, inputs_of(tensors))
    http = tritonclient.http.InferenceServerClient(served.address)
    same = http.infer(name, inputs_of(tensors, tritonclient.http))
    http.close()
    for output, content in zip(
        ("scores", "logits"), stub.ModelInfer(typed(name, tensors)).raw_output_contents, strict=True
    ):
        assert raw.as_numpy(output).tobytes() == content
        assert np.asarray(same.as_numpy(output)).tobytes() == content


def test_what_is_wrong_is_said(client, stub, folder):
    tensors = tensors_of(Predictor.open(folder / "visits").encode(rows_of(folder)))
    dense, ids = tensors["dense"], tensors["ids"]
    invalid, missing = "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND"
    for wrong, code, reason in (
        ({**tensors, "ids": ids + 10_000}, invalid, "is out of range"),
        ({"dense": dense}, invalid, 'the input "ids" is missing'),
        ({**tensors, "x": ids}, invalid, 'unknown input "x"'),
        ({**tensors, "ids": ids[:2]}, invalid, "different numbers of rows"),
        ({**tensors, "ids": dense}, invalid, "the datatype must be"),
        ({**tensors, "dense": dense * np.inf}, invalid, "no finite number"),
        ({"dense": dense[:0], "ids": ids[:0]}, invalid, "no rows"),
    ):
        with np.errstate(invalid="ignore"):
            given_code, message = refused(client.infer, "visits", inputs_of(wrong))
        assert (given_code, reason in message) == (code, True), message
    assert refused(client.infer, "nobody", inputs_of(tensors))[0] == missing
    assert refused(client.infer, "visits", inputs_of(tensors), model_version="9")[0] == missing
    outputs = [triton.InferRequestedOutput("odds")]
    assert (
        "unknown output" in refused(client.infer, "visits", inputs_of(tensors), outputs=outputs)[1]
    )
    outputs = [triton.InferRequestedOutput("scores", class_count=2)]
    assert "neither" in refused(client.infer, "visits", inputs_of(tensors), outputs=outputs)[1]
    # What the client would not send.
    request = typed("visits", tensors)
    request.inputs[1].shape[0] += 1
    more_raw = typed("visits", tensors)
    more_raw.raw_input_contents.append(b"1234")
    little_raw = PROTOCOL.ModelInferRequest(model_name="visits")
    little_raw.inputs.add(name="dense", datatype="FP32", shape=[1, 1])
    little_raw.raw_input_contents.append(b"123")
    negative = typed("visits", tensors)
    negative.inputs[0].shape[0] = -1
    twice = typed("visits", tensors)
    twice.inputs.append(twice.inputs[0])
    shared = typed("visits", tensors)
    shared.inputs[0].parameters["shared_memory_region"].string_param = "x"
    for wrong, reason in (
        (request, "the shape says"),
        (more_raw, "1 raw contents stand beside 2 inputs"),
        (little_raw, "3 bytes, expected 4"),
        (negative, "the shape is none"),
        (twice, "is there twice"),
        (shared, "shared memory is not read"),
    ):
        with pytest.raises(grpc.RpcError) as refusal:
            stub.ModelInfer(wrong)
        assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert reason in str(refusal.value.details())


@given(body=st.binary(max_size=300))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_a_request_or_refused(served, body):
    allowed = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    with grpc.insecure_channel(f"127.0.0.1:{served.server.grpc_port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        for prefix in (b"", b"\x0a\x06visits"):
            with pytest.raises(grpc.RpcError) as refusal:
                infer(prefix + body)
            assert refusal.value.code() in allowed


def test_what_is_no_method(served):
    with grpc.insecure_channel(f"127.0.0.1:{served.server.grpc_port}") as channel:
        with pytest.raises(grpc.RpcError) as refusal:
            channel.unary_unary("/inference.GRPCInferenceService/TraceSetting")(b"")
        assert refusal.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_the_repository(folder, tmp_path):
    shutil.copytree(folder / "visits", tmp_path / "run")
    runs = (f"m={tmp_path / 'run'}", folder / "two")
    with serving(*runs, address=GRPC) as served, client_of(served) as client:
        index = client.get_model_repository_index().models
        assert {(m.name, m.version, m.state) for m in index} == {
            ("m", "1", "READY"),
            ("two", "1", "READY"),
        }
        client.load_model("m")
        client.unload_model("m")
        assert not client.is_server_ready()
        assert not client.is_model_ready("m")
        assert refused(client.get_model_config, "m")[0] == "StatusCode.UNAVAILABLE"
        assert {m.state for m in client.get_model_repository_index().models} == {
            *("READY", "UNAVAILABLE")
        }
        client.load_model("m")
        assert client.is_model_ready("m", "2")
        assert refused(client.load_model, "nobody")[0] == "StatusCode.NOT_FOUND"
        assert refused(client.unload_model, "../m")[0] == "StatusCode.NOT_FOUND"
        code, reason = refused(client.load_model, "m", config="{}")
        assert (code, "no parameters" in reason) == ("StatusCode.INVALID_ARGUMENT", True)
        shutil.rmtree(tmp_path / "run")
        code, reason = refused(client.load_model, "m")
        assert code == "StatusCode.FAILED_PRECONDITION"
        assert str(tmp_path) not in reason
        assert client.is_model_ready("m", "2")


def test_streams(served, folder):
    predictor = Predictor.open(folder / "visits")
    frame = rows_of(folder)
    tensors = tensors_of(predictor.encode(frame))
    answers: queue.Queue[Any] = queue.Queue()
    with client_of(served) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for k in range(5):
            client.async_stream_infer("visits", inputs_of(tensors), request_id=str(k))
        for k in range(5):
            result, error = answers.get(timeout=30)
            assert error is None
            assert result.get_response().id == str(k)
            assert np.array_equal(result.as_numpy("scores"), predictor.scores(frame))
        # A request that is refused does not end the stream.
        client.async_stream_infer("nobody", inputs_of(tensors))
        assert "no such model" in str(answers.get(timeout=30)[1])
        client.async_stream_infer("visits", inputs_of(tensors))
        assert answers.get(timeout=30)[1] is None
        client.stop_stream()


def test_limits_have_their_code(folder):
    batch = Predictor.open(folder / "visits").encode(rows_of(folder))
    tensors = tensors_of(batch)
    exhausted = "StatusCode.RESOURCE_EXHAUSTED"
    limited = serving(folder / "visits", address=GRPC, rows=3, body_bytes=2000)
    with limited as served, client_of(served) as client:
        few = {name: tensor[:3] for name, tensor in tensors.items()}
        four = {name: tensor[:4] for name, tensor in tensors.items()}
        many = {name: np.repeat(tensor, 500, 0) for name, tensor in few.items()}
        client.infer("visits", inputs_of(few))
        assert refused(client.infer, "visits", inputs_of(four)) == (
            *(exhausted, "the request has 4 rows, at most 3 are taken: send several"),
        )
        assert refused(client.infer, "visits", inputs_of(many))[0] == exhausted
        # What was compressed counts as it was before.
        packed = refused(client.infer, "visits", inputs_of(many), compression_algorithm="gzip")
        assert packed[0] == exhausted
        client.infer("visits", inputs_of(few))


def test_a_full_queue_and_time_have_their_code(folder):
    tensors = tensors_of(Predictor.open(folder / "visits").encode(rows_of(folder)))
    with serving(folder / "visits", address=GRPC, queue=1, timeout_s=4.0) as served:
        predictor = served.repository.find("visits").predictor
        asked, go_on = threading.Event(), threading.Event()
        logits = predictor.logits

        def slow(batch):
            asked.set()
            go_on.wait(30)
            return logits(batch)

        predictor.logits = slow
        with client_of(served) as client, ThreadPoolExecutor(2) as pool:
            first = pool.submit(refused, client.infer, "visits", inputs_of(tensors))
            assert asked.wait(5)
            second = pool.submit(
                refused, client.infer, "visits", inputs_of(tensors), client_timeout=3.0
            )
            while served.server.waiting == 0:
                time.sleep(0.01)
            code, reason = refused(client.infer, "visits", inputs_of(tensors))
            assert code == "StatusCode.RESOURCE_EXHAUSTED"
            assert "1 requests wait" in reason
            assert first.result() == ("StatusCode.DEADLINE_EXCEEDED", "the time of 4 s is up")
            assert second.result()[0] == "StatusCode.DEADLINE_EXCEEDED"
            go_on.set()
            client.infer("visits", inputs_of(tensors))
        failures = served.repository.find("visits").statistics.failures
        assert failures == {"TOO_MANY_REQUESTS": 1, "GATEWAY_TIMEOUT": 2}


def test_a_token_is_asked_for(folder):
    tensors = tensors_of(Predictor.open(folder / "visits").encode(rows_of(folder)))
    guarded = serving(folder / "visits", address=GRPC, token="s3cret")
    with guarded as served, client_of(served) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret"}):
            for call, words in (
                (client.get_server_metadata, []),
                (client.is_model_ready, ["visits"]),
                (client.infer, ["visits", inputs_of(tensors)]),
                (client.unload_model, ["visits"]),
            ):
                code, reason = refused(call, *words, headers=headers)
                assert code == "StatusCode.UNAUTHENTICATED"
                assert reason == "Authorization: Bearer TOKEN is missing"
        headers = {"authorization": "Bearer s3cret"}
        client.infer("visits", inputs_of(tensors), headers=headers)
        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put(error))
        assert answers.get(timeout=30).status() == "StatusCode.UNAUTHENTICATED"


def test_the_end_answers_what_was_accepted(folder):
    predictor = Predictor.open(folder / "visits")
    frame = rows_of(folder).head(3)
    tensors = tensors_of(predictor.encode(frame))
    answers: queue.Queue[Any] = queue.Queue()
    with ThreadPoolExecutor(4) as pool:
        with serving(folder / "visits", address=GRPC, delay_s=1.0) as served:
            client = client_of(served)
            idle = client_of(served)
            # A stream that nobody uses does not hold up the end.
            idle.start_stream(lambda result, error: answers.put(error))
            waiting = [pool.submit(client.infer, "visits", inputs_of(tensors)) for _ in range(4)]
            while served.server.waiting < 4:
                time.sleep(0.01)
            began = time.monotonic()
        assert time.monotonic() - began < 8
        for answer in waiting:
            assert np.array_equal(answer.result().as_numpy("scores"), predictor.scores(frame))
    with pytest.raises(triton.InferenceServerException) as refusal:
        client.infer("visits", inputs_of(tensors))
    assert refusal.value.status() == "StatusCode.UNAVAILABLE"
    client.close()
    idle.close()


def test_tls(folder, tmp_path):
    cert, key = certificate(tmp_path)
    address = Address(port=0, grpc_port=0, tls_cert=cert, tls_key=key)
    with serving(folder / "visits", address=address) as served:
        with client_of(served, ssl=True, root_certificates=str(cert)) as client:
            assert client.is_server_live()
        with client_of(served) as client:
            assert refused(client.is_server_live)[0] == "StatusCode.UNAVAILABLE"


def test_ports(served, folder):
    taken = Address(port=0, grpc_port=served.server.grpc_port)
    repository = Repository([str(folder / "visits")], BackEnd())
    with pytest.raises(ConfigError, match="give another --grpc-port"):
        Server(repository, Limits(), taken).run()
    with pytest.raises(ConfigError, match="cannot both listen at port 8001"):
        Address(port=8001, grpc_port=8001)
    with pytest.raises(ConfigError, match="the port is 70000"):
        Address(grpc_port=70000)
