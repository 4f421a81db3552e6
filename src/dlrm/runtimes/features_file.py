"""What turns raw values into the inputs of an export, as Parquet and JSON that anybody can read.

A folder as a run has it, `features.json` and `vocabulary/NNNN.parquet`, for features that need no
more than look-ups and arithmetic; docs/guides/export.md has a reader of fifty lines.
"""

from pathlib import Path

from dlrm.data.features.category import Category
from dlrm.data.features.features import Features
from dlrm.data.features.list import LITERALS, List
from dlrm.data.features.number import Number
from dlrm.errors import ConfigError
from dlrm.run import Run


def write_features(run: Run, folder: Path) -> None:
    """Write the features of a run into a folder.

    Raises:
        ConfigError: A feature needs more than look-ups and arithmetic; names it.

    """
    features = Features.load(run.path)
    for feature in features.features:
        if why := _why_not(feature):
            name = feature.name
            raise ConfigError(
                f"--with-features: {name} {why}, which its reader cannot do: leave the flag out "
                "and encode rows with dlrm.Predictor.open(RUN).encode"
            )
    features.save(folder)


def _why_not(feature: Number | Category | List) -> str | None:
    """Return why a plain reader cannot encode a feature; None where it can."""
    if isinstance(feature, Number):
        reasons = {
            "is scaled by ranks": feature.scale == "quantile",
            "has hours and weekdays": feature.calendar is not None,
        }
    elif isinstance(feature, List):
        reasons = {
            "is written as lists of Python": feature.separator == LITERALS,
            "is hashed": feature.table is None,
        }
    else:
        reasons = {
            "is a cross": len(feature.columns) > 1,
            "has counts or target means beside it": bool(feature.encodings),
            "is hashed": feature.table is None or bool(feature.values.modulo),
        }
    return next((reason for reason, applies in reasons.items() if applies), None)
