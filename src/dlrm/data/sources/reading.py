"""How a text of a table is read: what the user says of it, and the shape that it has."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from dlrm.errors import ConfigError

Header = Literal["auto", "yes", "no"]
SPACES = r"\s+"
"""The separator that is any run of blanks."""
_NAMED = {"tab": "\t", "comma": ",", "semicolon": ";", "space": SPACES, "spaces": SPACES}
_NAMED |= {" ": SPACES, "\\t": "\t", "\\x01": "\x01", "\\x1f": "\x1f"}
"""Separators as one types them in a shell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What is said of the texts of a table; the rest is recognised.

    Raises:
        ConfigError: A setting has no meaning.

    """

    separator: str | None = None
    """Between the fields: one character or several; `SPACES` for runs of blanks."""
    header: Header = "auto"
    """Whether a line names the columns."""
    skip_lines: int | None = None
    """Lines before the header, or before the rows where there is none."""
    comment: str | None = None
    """What lines that are no records begin with."""

    def __post_init__(self) -> None:
        if self.separator is not None:
            separator = _NAMED.get(self.separator, self.separator)
            if not separator or any(mark in separator for mark in '"\r\n\0'):
                raise ConfigError(
                    f"separator is {self.separator!r}, expected what is between fields"
                )
            object.__setattr__(self, "separator", separator)
        if self.header not in ("auto", "yes", "no"):
            raise ConfigError(f'header is "{self.header}", expected auto, yes or no')
        if self.skip_lines is not None and self.skip_lines < 0:
            raise ConfigError(f"skip_lines is {self.skip_lines}, expected 0 or more")
        if self.comment is not None and not self.comment.strip():
            raise ConfigError("comment is empty, expected what comment lines begin with")

    def over(self, other: "Reading") -> "Reading":
        """Return another reading in which what is said here stands first."""
        mine = {name: value for name, value in asdict(self).items() if value not in (None, "auto")}
        return replace(other, **mine)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How the records of a text are read."""

    separator: str
    names: tuple[str, ...]
    """The columns."""
    skip: int
    """Lines before the first row."""
    comment: str | None = None
    """What lines that are no records begin with."""
    trailing: bool = False
    """Whether a separator ends each record, too."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What is out of the ordinary, in words."""
