"""A headless Chromium that tests speak to, by DevTools' protocol over a pair of pipes."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_FLAGS = ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run")


class Page:
    """A page of the browser; its script's errors and its console's warnings fail the test."""

    def __init__(self, commands: int, events: int):
        self._commands, self._events = commands, os.fdopen(events, "rb")
        self._count = 0
        self._session: str | None = None
        self.problems: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        text = bytearray()
        while (letter := self._events.read(1)) != b"\0":
            assert letter, "the browser has gone"
            text += letter
        event = json.loads(text)
        details = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(details))
            case "Log.entryAdded" if details["entry"]["level"] in ("error", "warning"):
                self.problems.append(json.dumps(details))
        return event

    def close(self) -> None:
        self._events.close()

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Return the value of an expression."""
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str) -> None:
        """Return when an expression is true."""
        until = time.monotonic() + 30
        while not self.run(script):
            assert time.monotonic() < until, (script, self.problems)
            time.sleep(0.02)

    def look(self, width: int, *, dark: bool) -> None:
        """Make the window so many CSS pixels wide, light or dark."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)

    def picture(self, file: Path) -> None:
        """Write a PNG of the whole page."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(picture["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Run a browser within the block, with one empty page."""
    to_browser, commands = os.pipe()
    events, from_browser = os.pipe()
    words = [*(f"--{flag}" for flag in _FLAGS), f"--user-data-dir={profile}"]
    # It reads commands from descriptor 3 and writes to 4, whatever these are here.
    shell = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
    process = subprocess.Popen(
        ["bash", "-c", shell, str(CHROMIUM), *words, "--remote-debugging-pipe"],
        pass_fds=(to_browser, from_browser),
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    page = Page(commands, events)
    try:
        yield page
        assert not page.problems
    finally:
        os.close(commands)
        process.wait(30)
        page.close()
