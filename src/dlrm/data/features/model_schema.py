"""The inputs of all features -> the schema of a model."""

from collections.abc import Container, Sequence
from dataclasses import replace

from dlrm.data.features.parts import Input
from dlrm.schema import DenseFeature, Feature, Schema, Table, Task


def named_apart(inputs: Sequence[Input]) -> list[Input]:
    """Return inputs of which no two numbers and no two categories have one name."""
    taken: set[tuple[bool, str]] = set()
    named = []
    for model_input in inputs:
        # "age missing" may be a column of the table, and the flag of another one.
        is_number = model_input.num_embeddings is None
        name = _free(model_input.name, {other for kind, other in taken if kind == is_number})
        taken.add((is_number, name))
        named.append(replace(model_input, name=name))
    return named


def schema_of(inputs: Sequence[Input], labels: tuple[str, ...], task: Task) -> Schema:
    """Return the schema of a model that takes these inputs, whose names differ."""
    tables: dict[str, Table] = {}
    shared: dict[str, str] = {}
    features = []
    for model_input in inputs:
        if model_input.num_embeddings is None:
            continue
        table = shared.get(model_input.table)
        if table is None:
            table = _free(model_input.table or model_input.name, tables)
            tables[table] = Table(name=table, num_embeddings=model_input.num_embeddings)
            if model_input.table:
                shared[model_input.table] = table
        features.append(
            Feature(
                name=model_input.name,
                table=table,
                kind=model_input.kind,
                max_length=model_input.max_length,
            )
        )
    return Schema(
        dense=tuple(
            DenseFeature(
                name=model_input.name, transform=model_input.transform, bins=model_input.bins
            )
            for model_input in inputs
            if model_input.num_embeddings is None
        ),
        tables=tuple(tables.values()),
        features=tuple(features),
        labels=labels,
        task=task,
    )


def _free(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken: this one, or with a number behind it."""
    free, number = name, 2
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free
