"""The ways to keep and to multiply numbers that are compared, each one change from float32."""

from dataclasses import dataclass, replace
from typing import Literal

from dlrm.errors import ConfigError, unknown
from dlrm.nn.embedding import Storage
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.qat import QAT
from dlrm.nn.quantized import TableDtype as Bits
from dlrm.training.config import TrainConfig

Kind = Literal["reference", "training", "post-training", "qat"]
"""What the others are compared with; trained in another way; made of the reference's trained
tables; or trained for what is made of them afterwards."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One change from float32."""

    name: str
    kind: Kind
    what: str
    """Description of the variant in words."""
    precision: ComputeDtype = "fp32"
    """Number format of the MLPs' products."""
    storage: Storage = "fp32"
    """Storage of the tables in training."""
    qat: QAT = "none"
    """Codes that the tables are trained for."""
    to: Bits | None = None
    """What trained tables become before they are measured."""

    def config(self, config: TrainConfig, seed: int) -> TrainConfig:
        """Return how this variant is trained with a seed.

        Raises:
            ConfigError: The tables of the config cannot be trained so.

        """
        tables = replace(config.model.tables, storage=self.storage, qat=self.qat)
        return replace(
            config,
            model=replace(config.model, tables=tables),
            precision=self.precision,
            seed=seed,
            loader=replace(config.loader, seed=seed),
            # What is compared is one model of the recipe, and nothing beside it.
            ensemble=1,
            ensemble_models=(),
            baseline=False,
            tensorboard=False,
            checkpoint=replace(config.checkpoint, keep=1),
            eval=replace(config.eval, splits=("validation",)),
        )


REFERENCE = Variant("fp32", "reference", "everything in float32")

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        REFERENCE,
        Variant("mlp-bf16", "training", "MLPs multiply bfloat16", precision="bf16"),
        Variant(
            "bf16-nearest", "training", "tables in bfloat16, updates rounded to the nearest",
            storage="bf16_nearest",
        ),
        Variant(
            "bf16-stochastic", "training", "tables in bfloat16, updates rounded at random",
            storage="bf16",
        ),
        Variant(
            "split-bf16", "training", "tables in two halves of 16 bits, of which lookups read one",
            storage="split",
        ),
        Variant("fp16", "post-training", "trained tables rounded to float16", to="fp16"),
        Variant("bf16", "post-training", "trained tables rounded to bfloat16", to="bf16"),
        Variant("int8", "post-training", "trained tables rounded to 8 bits", to="int8"),
        Variant("int4", "post-training", "trained tables rounded to 4 bits", to="int4"),
        Variant("int2", "post-training", "trained tables rounded to 2 bits", to="int2"),
        Variant("aware-int8", "qat", "tables trained for 8 bits", qat="int8", to="int8"),
        Variant("aware-int4", "qat", "tables trained for 4 bits", qat="int4", to="int4"),
        Variant("aware-int2", "qat", "tables trained for 2 bits", qat="int2", to="int2"),
    )
}  # fmt: skip
"""Variants by name, the reference first."""


def chosen(names: str) -> tuple[Variant, ...]:
    """Return the variants of a list with commas (empty for all), the reference first in any case.

    Raises:
        ConfigError: There is no such variant (lists the choices), or none but the reference.

    """
    words = [word.strip() for word in names.split(",") if word.strip()]
    for word in words:
        if word not in VARIANTS:
            raise unknown("variant", word, VARIANTS)
    if words and set(words) <= {REFERENCE.name}:
        others = ", ".join(list(VARIANTS)[1:])
        raise ConfigError(f"variants is {names}: nothing to compare with it; choose from: {others}")
    selected = {REFERENCE.name, *words} if words else set(VARIANTS)
    return tuple(variant for variant in VARIANTS.values() if variant.name in selected)
