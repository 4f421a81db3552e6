import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.encoder import Encoder
from dlrm.data.segments import MISSING, RARE, by_column, users
from dlrm.data.store import Split
from dlrm.errors import ConfigError

from .logs import criteo_lines


def some(split: Split) -> None:
    raise NotImplementedError
