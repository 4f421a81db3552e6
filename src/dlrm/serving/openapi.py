"""The OpenAPI document of a server, made of the models that it has."""

from collections.abc import Sequence
from typing import Any

from dlrm import __version__
from dlrm.serving.model import Model

_JSON = "application/json"


def document(models: Sequence[Model]) -> dict[str, Any]:
    """Return the document: paths, and of each model the columns of its rows and its tensors."""
    newest = {model.name: model for model in sorted(models, key=lambda model: int(model.version))}
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("Name, version and extensions of the server.")},
        "/v2/health/live": {"get": _operation("200 while the server answers.")},
        "/v2/health/ready": {"get": _operation("200 when all models are loaded, else 503.")},
        "/v2/models/stats": {"get": _operation("Statistics of all models.")},
        "/v2/repository/index": {"post": _operation("All models, and whether they are loaded.")},
        "/status": {"get": _operation("Models, queue and shadows, as the page shows them.")},
        "/metrics": {"get": _operation("Metrics as Prometheus reads them.")},
    }
    for at, (name, model) in enumerate(newest.items()):
        score = {"post": _operation(f"Scores of raw rows by {name}.", _rows(model))}
        paths[f"/score/{name}"] = score
        if at == 0:
            paths["/score"] = score
        base = f"/v2/models/{name}"
        infer = f"Outputs of {name} for encoded rows; without the version in the path, its newest."
        paths |= {
            base: {"get": _operation("Versions, inputs and outputs.")},
            f"{base}/ready": {"get": _operation("200 when it is loaded, else 503.")},
            f"{base}/config": {"get": _operation("Its configuration, as Triton has it.")},
            f"{base}/stats": {"get": _operation("Its statistics.")},
            f"{base}/columns": {"get": _operation("Its columns, and values that are usual.")},
            f"{base}/shadow": {"get": _operation("How its shadows compare with it.")},
            f"{base}/infer": {"post": _operation(infer, _tensors(model))},
            f"{base}/versions/{model.version}/infer": {"post": _operation(infer, _tensors(model))},
            f"/v2/repository/models/{name}/load": {
                "post": _operation("Takes the newest checkpoint of its run.")
            },
            f"/v2/repository/models/{name}/unload": {"post": _operation("Takes it away.")},
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dlrm",
            "version": __version__,
            "description": "Open Inference Protocol v2, and scores of raw rows.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {"error": {"type": "string"}},
                    "required": ["error"],
                }
            }
        },
    }


def _operation(summary: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    error = {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "The answer."},
            "default": {"description": "Why there is none.", "content": error},
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": body}}}
    return operation


def _rows(model: Model) -> dict[str, Any]:
    """Return the schema of rows: one, a list, or an object with a list."""
    columns = model.predictor.features.needed
    row = {
        "type": "object",
        "description": "Raw columns; null or nothing where a value is missing.",
        "properties": {name: {} for name in columns},
    }
    rows = {"type": "array", "items": row, "minItems": 1}
    wrapped = {"type": "object", "properties": {"rows": rows}, "required": ["rows"]}
    return {"oneOf": [row, rows, wrapped]}


def _tensors(model: Model) -> dict[str, Any]:
    """Return the schema of an inference request."""
    inputs = model.signature.inputs.values()
    text = ", ".join(f"{tensor.name} {tensor.datatype} {list(tensor.shape)}" for tensor in inputs)
    tensor = {
        "type": "object",
        "properties": {
            "name": {"enum": [tensor.name for tensor in inputs]},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array"},
            "parameters": {"type": "object"},
        },
        "required": ["name", "datatype", "shape"],
    }
    outputs = {
        "type": "object",
        "properties": {"name": {"enum": list(model.signature.outputs)}},
        "required": ["name"],
    }
    return {
        "type": "object",
        "description": f"Inputs: {text}.",
        "properties": {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": tensor},
            "outputs": {"type": "array", "items": outputs},
            "parameters": {"type": "object"},
        },
        "required": ["inputs"],
    }
