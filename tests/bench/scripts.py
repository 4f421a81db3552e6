"""The scripts in benchmarks/, which import each other by their names."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


def script(name: str) -> Any:
    """Return a script as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look for their module.
    sys.modules[spec.name] = module
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    spec.loader.exec_module(module)
    return module
