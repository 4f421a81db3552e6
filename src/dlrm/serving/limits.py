"""What one request may ask of the server, and what a request is told that asks for more.

body too large, too many rows  413        queue full  429        time is up  504 (408 where the
body does not arrive)
"""

from dataclasses import dataclass
from http import HTTPStatus

from dlrm.errors import ConfigError, DlrmError


class RefusalError(DlrmError):
    """A request that is not answered as its client hoped.

    Args:
        status: The HTTP status.
        reason: Why, for the client: it names no path and nothing else of this machine.

    """

    def __init__(self, status: HTTPStatus, reason: str):
        super().__init__(reason)
        self.status = status


def bad(reason: str) -> RefusalError:
    """Return the refusal of a request that is wrong in itself."""
    return RefusalError(HTTPStatus.BAD_REQUEST, reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of a server.

    Raises:
        ConfigError: One leaves nothing.

    """

    body_bytes: int = 16 << 20
    """Of the body of a request, also after it was decompressed."""
    rows: int = 16384
    """Of one request."""
    queue: int = 1024
    """Requests that wait for their turn."""
    timeout_s: float = 10.0
    """From the first byte of a request to its answer."""
    batch: int = 1024
    """Rows from which on no other request joins a batch."""
    delay_s: float = 0.0
    """Seconds that a request waits for others to share its batch; 0 takes those that are there."""

    def __post_init__(self) -> None:
        for name in ("body_bytes", "rows", "queue", "timeout_s", "batch"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"the limit {name} is {getattr(self, name)}, expected more than 0"
                )
        if not 0 <= self.delay_s < self.timeout_s:
            raise ConfigError(f"a delay of {self.delay_s} s leaves no time of {self.timeout_s} s")

    def check_body(self, size: int) -> None:
        """Raise a RefusalError where a body is larger than allowed."""
        if size > self.body_bytes:
            raise RefusalError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body is larger than {self.body_bytes} bytes, the most that is taken",
            )

    def check_rows(self, rows: int) -> None:
        """Raise a RefusalError where a request has more rows than allowed, or none."""
        if rows > self.rows:
            raise RefusalError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the request has {rows} rows, at most {self.rows} are taken: send several",
            )
        if rows == 0:
            raise bad("the request has no rows")
