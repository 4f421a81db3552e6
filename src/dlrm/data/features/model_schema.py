"""The inputs of all features -> the schema of a model."""

from collections.abc import Container, Sequence
from dataclasses import replace

from dlrm.data.features.parts import Input
from dlrm.schema import DenseFeature, Feature, Schema, Table, Task


def named_apart(inputs: Sequence[Input]) -> list[Input]:
    """Return inputs of which no two numbers and no two categories have one name."""
    taken: set[tuple[bool, str]] = set()
    named = []
    for made in inputs:
        # "age missing" may be a column of the table, and the flag of another one.
        is_number = made.num_embeddings is None
        name = _free(made.name, {other for kind, other in taken if kind == is_number})
        taken.add((is_number, name))
        named.append(replace(made, name=name))
    return named


def schema_of(inputs: Sequence[Input], labels: tuple[str, ...], task: Task) -> Schema:
    """Return the schema of a model that takes these inputs, whose names differ."""
    tables: dict[str, Table] = {}
    shared: dict[str, str] = {}
    features = []
    for made in inputs:
        if made.num_embeddings is None:
            continue
        table = shared.get(made.table)
        if table is None:
            table = _free(made.table or made.name, tables)
            tables[table] = Table(name=table, num_embeddings=made.num_embeddings)
            if made.table:
                shared[made.table] = table
        features.append(
            Feature(name=made.name, table=table, kind=made.kind, max_length=made.max_length)
        )
    return Schema(
        dense=tuple(
            DenseFeature(name=made.name, transform=made.transform)
            for made in inputs
            if made.num_embeddings is None
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
