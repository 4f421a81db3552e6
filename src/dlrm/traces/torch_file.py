"""A file of torch.save that holds tensors of integers, read without executing its pickle.

The pickle inside is taken as a list of operations, of which those that name a tensor's storage,
shape and strides are understood. Nothing that it names is called; anything else is an error.
"""

import io
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import InputError

PICKLE = "a pickle can run anything when it is read"

_TYPES = {
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
}


_MARK = object()

Spec = tuple[str, str, int, tuple[int, ...], tuple[int, ...]]
"""Storage type, key, offset, shape and strides of a tensor."""


def read_tensors(packed: bytes, path: Path) -> list[NDArray[Any]]:
    """Return the tensors of integers that a file holds.

    Args:
        packed: What is in the file.
        path: Its name, for errors.

    Raises:
        InputError: It is another file, or holds anything else.

    """
    if not packed.startswith(b"PK"):
        raise InputError(f"not a zip of tensors; {PICKLE}", file=path)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        program = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(program) != 1:
            raise InputError("not a file of torch.save", file=path)
        root = program[0].removesuffix("data.pkl")
        tensors = []
        for kind, key, offset, shape, stride in _Program(path).run(archive.read(program[0])):
            if kind not in _TYPES:
                raise InputError(f"a tensor of {kind}, expected integers", file=path)
            storage = np.frombuffer(archive.read(f"{root}data/{key}"), _TYPES[kind])
            need = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) + 1
            if 0 not in shape and (need > len(storage) or min((offset, *stride, *shape)) < 0):
                raise InputError("a tensor is longer than its numbers: cut off?", file=path)
            strides = [s * storage.itemsize for s in stride]
            tensors.append(np.lib.stride_tricks.as_strided(storage[offset:], shape, strides))
        return tensors


class _Program:
    """The tensors that a pickle describes, found by following its stack."""

    def __init__(self, path: Path):
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.specs: list[Spec] = []

    def run(self, program: bytes) -> list[Spec]:
        """Return the tensors in the order in which they are described."""
        for operation, argument, _ in pickletools.genops(program):
            self._step(operation.name, argument)
        return self.specs

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("PROTO", "STOP", "FRAME"):
            return
        if name in ("TUPLE", "LIST"):
            stack.append(self._since_mark())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            stack[-size:] = [tuple(stack[-size:])]
        elif name == "APPENDS":
            values = self._since_mark()
            stack[-1] = (*stack[-1], *values)
        elif name == "APPEND":
            value = stack.pop()
            stack[-1] = (*stack[-1], value)
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = stack[-1]
        elif name == "BINPERSID":
            _, kind, key, *_ = stack.pop()
            stack.append((kind.split(" ")[-1], key))
        elif name == "REDUCE":
            self._reduce()
        else:
            stack.append(self._value(name, argument))

    def _value(self, name: str, argument: Any) -> Any:
        """Return what an operation puts on the stack."""
        if name == "MARK":
            return _MARK
        if name in ("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"):
            return ()
        if name in ("NEWTRUE", "NEWFALSE", "NONE"):
            return None
        if name in ("BINGET", "LONG_BINGET"):
            return self.memo[argument]
        if name in ("GLOBAL", "LONG1") or name.startswith(("BININT", "BINUNICODE", "SHORT_BINU")):
            return argument
        raise InputError(f"it holds more than tensors ({name}), and {PICKLE}", file=self.path)

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if function == "torch._utils _rebuild_tensor_v2":
            (kind, key), offset, shape, stride, *_ = arguments
            self.specs.append((kind, key, offset, shape, stride))
        elif function != "collections OrderedDict":
            raise InputError(f"it calls {function}, and {PICKLE}", file=self.path)
        self.stack.append(())

    def _since_mark(self) -> tuple[Any, ...]:
        place = max(i for i, value in enumerate(self.stack) if value is _MARK)
        values = tuple(self.stack[place + 1 :])
        del self.stack[place:]
        return values
