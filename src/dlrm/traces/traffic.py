"""The contract of a traffic model: fitted to a trace, shared as JSON, asked for traces.

    Trace ──fit──> Traffic ──to_dict──> JSON ──of──> Traffic ──generate(accesses, seed)──> Trace

No model holds an id of its source: ids are numbers of its own, from 0.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import ConfigError
from dlrm.traces.trace import Ids, Trace


class Traffic(ABC):
    """A model of the accesses of one feature.

    A subclass defines `fit`, `chunks`, `parameters` and `of`.
    """

    kind: ClassVar[str]
    """Its name in files and on cards."""
    least: ClassVar[int] = 1
    """Accesses that it takes to fit one."""

    lengths: NDArray[np.float64] | None = None
    """Share of the samples with 0, 1, 2 ... ids; None where each has one"""

    @classmethod
    def fitted(cls, trace: Trace) -> Self:
        """Return the model of a trace, pooling included.

        Raises:
            ConfigError: The trace is too short; says how long it must be.

        """
        if len(trace) < cls.least:
            raise ConfigError(
                f"the trace {trace.name} has {len(trace):,} accesses, and a model of kind "
                f"{cls.kind} needs {cls.least:,} or more"
            )
        model = cls.fit(trace)
        if trace.lengths is not None:
            model.lengths = np.bincount(trace.lengths) / len(trace.lengths)
        return model

    @classmethod
    @abstractmethod
    def fit(cls, trace: Trace) -> Self:
        """Return the model of a trace that is long enough, pooling aside."""

    @abstractmethod
    def chunks(self, rng: np.random.Generator) -> Iterator[Ids]:
        """Yield the ids of a stream without end, in order, any number at a time.

        Ids are below what `num_embeddings` says for the accesses so far.
        """

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Return the parameters, JSON-ready."""

    @classmethod
    @abstractmethod
    def of(cls, parameters: dict[str, Any]) -> Self:
        """Return the model of such parameters.

        Raises:
            ValueError: They mean nothing; so do a KeyError and a TypeError.

        """

    def stream(self, seed: int, size: int) -> Iterator[Ids]:
        """Yield a stream without end, `size` ids at a time, keeping its state in between."""
        pending = np.empty(0, np.int64)
        for chunk in self.chunks(np.random.default_rng(seed)):
            pending = np.concatenate([pending, chunk])
            whole = len(pending) // size * size
            yield from np.split(pending[:whole], range(size, whole, size)) if whole else ()
            pending = pending[whole:]

    def generate(self, accesses: int, seed: int = 0, name: str = "synthetic") -> Trace:
        """Return a trace of so many accesses, the same for an equal seed."""
        if accesses < 1:
            raise ConfigError(f"accesses is {accesses}, expected at least 1")
        parts: list[Ids] = []
        missing = accesses
        for chunk in self.chunks(np.random.default_rng(seed)):
            parts.append(chunk[:missing])
            missing -= len(parts[-1])
            if not missing:
                break
        return Trace(name, np.concatenate(parts), self.draw_lengths(accesses, seed))

    def samples(self, samples: int, seed: int = 0) -> tuple[Ids, Ids | None]:
        """Return the ids (L,) of so many samples, and their lengths, None where each is 1."""
        if self.lengths is None:
            return self.generate(samples, seed).ids, None
        lengths = shared_out(self.lengths, samples, np.random.default_rng((seed, 1)))
        total = int(lengths.sum())
        return (self.generate(total, seed).ids if total else np.empty(0, np.int64)), lengths

    def draw_lengths(self, accesses: int, seed: int) -> Ids | None:
        """Return lengths of samples that sum to so many accesses; None where each is 1."""
        if self.lengths is None:
            return None
        rng = np.random.default_rng((seed, 1))
        mean = max(float(self.lengths @ np.arange(len(self.lengths))), 1e-3)
        drawn: list[Ids] = []
        total = 0
        while total < accesses:
            size = int((accesses - total) / mean) + 16
            drawn.append(shared_out(self.lengths, size, rng))
            total += int(drawn[-1].sum())
        lengths = np.concatenate(drawn)
        ends = np.cumsum(lengths)
        last = int(np.searchsorted(ends, accesses))
        lengths = lengths[: last + 1]
        lengths[last] -= ends[last] - accesses
        return lengths

    def to_dict(self) -> dict[str, Any]:
        """Return the model JSON-ready."""
        pooling = {} if self.lengths is None else {"pooling": np.round(self.lengths, 9).tolist()}
        return {"kind": self.kind, **self.parameters(), **pooling}


def shared_out(weights: Any, size: int, rng: np.random.Generator) -> Ids:
    """Return `size` draws of places (size,) in proportion to weights, in random order.

    Each place is drawn as often as its share of `size` says, up to one: the shares of the draws are
    those of the weights, as far as whole numbers can be.
    """
    shares = np.asarray(weights, np.float64)
    expected = shares / shares.sum() * size
    counts = np.floor(expected).astype(np.int64)
    rest = int(size - counts.sum())
    if rest > 0:
        fractions = np.maximum(expected - counts, 0.0)
        counts += rng.multinomial(rest, fractions / fractions.sum())
    places = np.repeat(np.arange(len(shares)), counts)
    rng.shuffle(places)
    return places
