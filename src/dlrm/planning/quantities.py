"""Amounts with units, durations and counts, as people write them on a command line."""

import re

from dlrm.errors import ConfigError

PREFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
EXAMPLES = {"widths": "512-256-64", "rows": "10k,1M", "threads": "1,2", "batch": "128,2048"}
"""Flag -> what could be given."""


def quantity(text: str, unit: str, flag: str) -> float:
    """Read a number with a unit: 80GB, 16GiB, 25GB/s, 60TFLOP.

    Args:
        text: Digits, then a prefix of powers of ten (k, M, G, T, P), or of two (Ki, Mi, Gi, Ti),
            then the unit, which may be left out, as may `/s`.
        unit: `B` or `FLOP`.
        flag: For errors.

    Raises:
        ConfigError: It is none, or not positive.

    """
    read = re.fullmatch(
        rf"\s*([0-9]+(?:\.[0-9]*)?(?:e[0-9]+)?)\s*([kKMGTP]?)(i?)({unit}S?)?(/s)?\s*", text, re.I
    )
    prefix = read[2].upper().replace("K", "k") if read else ""
    if not read or (read[3] and not prefix) or float(read[1]) <= 0:
        example = "80GB or 16GiB" if unit == "B" else "60TFLOP"
        raise ConfigError(f'{flag} is "{text}", expected a positive amount such as {example}')
    power = list(PREFIXES).index(prefix)
    return float(read[1]) * (1024**power if read[3] else PREFIXES[prefix])


def duration(text: str, flag: str) -> float:
    """Return the seconds of a duration such as 5us.

    Raises:
        ConfigError: It is none.

    """
    read = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?(?:e-?[0-9]+)?)\s*(s|ms|us|µs|ns)\s*", text)
    if read is None:
        raise ConfigError(f'{flag} is "{text}", expected a duration such as 5us')
    return float(read[1]) * SECONDS[read[2]]


def words(text: str) -> list[str]:
    """Return what stands between commas, each once.

    >>> words("fp32, bf16,fp32")
    ['fp32', 'bf16']
    """
    return list(dict.fromkeys(word.strip() for word in text.split(",")))


def counts(name: str, text: str, *, between: str = ",", least: int = 1) -> list[int]:
    """Return whole numbers, which may be as short as `250k`, `1M` or `0.5M`.

    Args:
        name: Name of the flag.
        text: What was given.
        between: What stands between two numbers.
        least: No number may be below it.

    Raises:
        ConfigError: One is no such number.

    """
    numbers = []
    for word in text.split(between):
        prefix = word.strip()[-1:].replace("K", "k")
        factor = PREFIXES.get(prefix, 1)
        try:
            number = float(word.strip()[:-1] if factor > 1 else word) * factor
        except (ValueError, OverflowError):
            number = -1.0
        if number < least or number != number // 1:
            example = EXAMPLES.get(name, "16,64")
            raise ConfigError(
                f'{name} is "{text}": "{word.strip()}" is no whole number of at least {least}; '
                f"give values such as {example}"
            )
        numbers.append(int(number))
    return numbers
