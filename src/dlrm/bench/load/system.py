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
        self._process = subprocess.Popen(
            [*command, "--host", self.host, "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C is for who measures, who ends this.
            start_new_session=True,
        )
        assert self._process.stderr is not None
        last: deque[str] = deque(maxlen=1)
        for line in self._process.stderr:
            if line.startswith(_SERVING):
                self.port = int(line.partition(";")[0].rpartition(":")[2])
                break
            last.append(line.strip())
        else:
            self._process.wait()
            self._process.stderr.close()
            raise ConfigError(f"dlrm serve has ended: {' '.join(last) or 'without a word'}")
        # What it says later must not fill the pipe.
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _drain(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            deque(stderr, maxlen=0)

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
