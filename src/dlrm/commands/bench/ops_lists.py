"""Lists on the command line: values of a flag, separated by commas."""

from dlrm.errors import ConfigError
from dlrm.nn.precision import resolve

FACTORS = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}


def words(text: str) -> list[str]:
    """Return what stands between commas, each once.

    >>> words("fp32, bf16,fp32")
    ['fp32', 'bf16']
    """
    return list(dict.fromkeys(word.strip() for word in text.split(",")))


def numbers(name: str, text: str, least: int = 1) -> list[int]:
    """Return whole numbers, which may be as short as `250k`, `1M` or `0.5M`.

    Args:
        name: Of the flag.
        text: What was given.
        least: No number may be below it.

    Raises:
        ConfigError: One is no such number.

    """
    return [_number(name, text, word, least) for word in words(text)]


def widths_of(text: str) -> list[tuple[int, ...]]:
    """Return sizes of MLPs, each with dashes between: `512-256-64,13-512-64`.

    Raises:
        ConfigError: A size is no positive number.

    """
    return [
        tuple(_number("widths", text, size, 1) for size in word.split("-")) for word in words(text)
    ]


def precisions(text: str) -> list[str]:
    """Return precisions; `auto` becomes what it means here.

    Raises:
        ConfigError: There is none of a name.

    """
    return list(dict.fromkeys(resolve(word) for word in words(text)))


def _number(name: str, text: str, word: str, least: int) -> int:
    factor = FACTORS.get(word[-1:], 1)
    try:
        number = float(word[:-1] if factor > 1 else word) * factor
        if number >= least and number == round(number):
            return round(number)
    except (ValueError, OverflowError):
        pass
    example = {"widths": "512-256-64", "rows": "10k,1M", "threads": "1,2"}.get(name, "16,64")
    raise ConfigError(
        f'{name} is "{text}": "{word}" is no whole number of at least {least}; '
        f"give values such as {example}"
    )
