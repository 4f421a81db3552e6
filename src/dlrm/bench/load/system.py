"""The system under test: a process of `dlrm serve` on a free port of this machine."""

import http.client
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import Self

from dlrm.errors import ConfigError

END_S = 30.0
"""Seconds that a server has to answer what it accepted before it is killed."""
_SERVING = "Serving "


class System:
    """A server in a process of its own, from the block's begin, when it is ready, to its end.

    Args:
        words: Arguments of `dlrm serve` but for host and port.

    Raises:
        ConfigError: It ends instead of serving; says why.

    """

    host = "127.0.0.1"

    def __init__(self, words: Sequence[str]):
        self._words = words
        self.port = 0

    def __enter__(self) -> Self:
        command = [sys.executable, "-P", "-m", "dlrm", "serve", *self._words]
        process = subprocess.Popen(
            [*command, "--host", self.host, "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C is for who measures, who ends this.
            start_new_session=True,
        )
        self._process = process
        self._reader = threading.Thread(target=deque, args=[process.stderr, 0], daemon=True)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        # What it says later must not fill the pipe.
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader.ident is not None:
            self._reader.join()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _wait(self) -> None:
        """Return when it serves."""
        assert self._process.stderr is not None
        last = ""
        for line in self._process.stderr:
            if line.startswith(_SERVING):
                self.port = int(line.partition(";")[0].rpartition(":")[2])
                return
            last = line.strip() or last
        raise ConfigError(f"dlrm serve has ended: {last or 'without a word'}")

    def check(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        """Send a request once, for what is wrong with it to be said before it is measured.

        Raises:
            ConfigError: The answer's status is not 200; says what the server says.

        """
        connection = http.client.HTTPConnection(self.host, self.port, timeout=END_S)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        finally:
            connection.close()
        if response.status != 200:
            raise ConfigError(f"the server answers {response.status}: {text}")
