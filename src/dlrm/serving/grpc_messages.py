"""The messages of the Open Inference Protocol over gRPC, as a table of their fields.

    a field   name type number      type* is a list, type% a map from texts, type? one of several

Names of fields and their numbers are the protocol's; so are the names of its methods. The classes
live in a pool of their own, so that a client of the protocol in the same process, which brings the
same names, does not clash with them.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

_ENUMS = {
    "DataType": [
        *(
            f"TYPE_{name}"
            for name in (
                *("INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64"),
                *("INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "STRING", "BF16"),
            )
        )
    ],
    "Kind": ["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"],
}
"""Name of an enumeration -> its values, counted from 0."""

_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live bool 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready bool 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name string 1, version string 2, extensions string* 3",
    "ModelReadyRequest": "name string 1, version string 2",
    "ModelReadyResponse": "ready bool 1",
    "ModelMetadataRequest": "name string 1, version string 2",
    "ModelMetadataResponse": (
        "name string 1, versions string* 2, platform string 3, inputs TensorMetadata* 4, "
        "outputs TensorMetadata* 5"
    ),
    "TensorMetadata": "name string 1, datatype string 2, shape int64* 3",
    "ModelConfigRequest": "name string 1, version string 2",
    "ModelConfigResponse": "config ModelConfig 1",
    "ModelConfig": (
        "name string 1, platform string 2, backend string 17, version_policy VersionPolicy 3, "
        "max_batch_size int32 4, input TensorConfig* 5, output OutputConfig* 6, "
        "dynamic_batching DynamicBatching 11, instance_group InstanceGroup* 7"
    ),
    "VersionPolicy": "all AllVersions 2",
    "AllVersions": "",
    "TensorConfig": "name string 1, data_type DataType 2, dims int64* 4",
    "OutputConfig": "name string 1, data_type DataType 2, dims int64* 3",
    "DynamicBatching": "preferred_batch_size int32* 1, max_queue_delay_microseconds uint64 2",
    "InstanceGroup": "name string 1, kind Kind 4, count int32 2",
    "ModelInferRequest": (
        "model_name string 1, model_version string 2, id string 3, parameters InferParameter% 4, "
        "inputs InferTensor* 5, outputs RequestedOutput* 6, raw_input_contents bytes* 7"
    ),
    "ModelInferResponse": (
        "model_name string 1, model_version string 2, id string 3, parameters InferParameter% 4, "
        "outputs InferTensor* 5, raw_output_contents bytes* 6"
    ),
    "ModelStreamInferResponse": "error_message string 1, infer_response ModelInferResponse 2",
    "InferTensor": (
        "name string 1, datatype string 2, shape int64* 3, parameters InferParameter% 4, "
        "contents TensorContents 5"
    ),
    "RequestedOutput": "name string 1, parameters InferParameter% 2",
    "InferParameter": (
        "bool_param bool? 1, int64_param int64? 2, string_param string? 3, double_param double? 4, "
        "uint64_param uint64? 5"
    ),
    "TensorContents": (
        "bool_contents bool* 1, int_contents int32* 2, int64_contents int64* 3, "
        "uint_contents uint32* 4, uint64_contents uint64* 5, fp32_contents float* 6, "
        "fp64_contents double* 7, bytes_contents bytes* 8"
    ),
    "ModelStatisticsRequest": "name string 1, version string 2",
    "ModelStatisticsResponse": "model_stats ModelStatistics* 1",
    "ModelStatistics": (
        "name string 1, version string 2, last_inference uint64 3, inference_count uint64 4, "
        "execution_count uint64 5, inference_stats InferStatistics 6"
    ),
    "InferStatistics": (
        "success Duration 1, fail Duration 2, queue Duration 3, compute_input Duration 4, "
        "compute_infer Duration 5, compute_output Duration 6, cache_hit Duration 7, "
        "cache_miss Duration 8"
    ),
    "Duration": "count uint64 1, ns uint64 2",
    "RepositoryIndexRequest": "repository_name string 1, ready bool 2",
    "RepositoryIndexResponse": "models ModelIndex* 1",
    "ModelIndex": "name string 1, version string 2, state string 3, reason string 4",
    "RepositoryModelLoadRequest": (
        "repository_name string 1, model_name string 2, parameters RepositoryParameter% 3"
    ),
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": (
        "repository_name string 1, model_name string 2, parameters RepositoryParameter% 3"
    ),
    "RepositoryModelUnloadResponse": "",
    "RepositoryParameter": (
        "bool_param bool? 1, int64_param int64? 2, string_param string? 3, bytes_param bytes? 4"
    ),
}
"""Name of a message -> its fields."""

_Field = descriptor_pb2.FieldDescriptorProto


def message(name: str) -> type[Any]:
    """Return the class of a message, by its name in the table."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def _described() -> descriptor_pool.DescriptorPool:
    """Return a pool that knows the table."""
    file = descriptor_pb2.FileDescriptorProto(
        name="dlrm/inference.proto", package=PACKAGE, syntax="proto3"
    )
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for text in filter(None, fields.split(", ")):
            _add(described, *text.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add(described: Any, name: str, kind: str, number: str) -> None:
    """Add a field to the description of a message."""
    field = described.field.add(name=name, number=int(number), label=_Field.LABEL_OPTIONAL)
    if kind.endswith(("*", "%")):
        field.label = _Field.LABEL_REPEATED
    if kind.endswith("?"):
        if not described.oneof_decl:
            described.oneof_decl.add(name="choice")
        field.oneof_index = 0
    if kind.endswith("%"):
        # A map is a list of pairs, whose message has the name that protobuf expects.
        entry = described.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _add(entry, "key", "string", "1")
        _add(entry, "value", kind[:-1], "2")
        kind = f"{described.name}.{entry.name}"
    kind = kind.rstrip("*?")
    if kind in _ENUMS:
        field.type, field.type_name = _Field.TYPE_ENUM, f".{PACKAGE}.{kind}"
    elif kind[0].isupper():
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = _Field.Type.Value(f"TYPE_{kind.upper()}")


_POOL = _described()
