"""Amounts with units, durations and counts, as people write them on a command line."""

import re

from dlrm.errors import ConfigError

PREFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}


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
