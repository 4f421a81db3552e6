"""`dlrm serve`: trained models over HTTP and gRPC."""

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.text import Text
from tyro.conf import arg

from dlrm import terminal
from dlrm.errors import ConfigError, UsageError
from dlrm.nn.quantized import TableDtype
from dlrm.serving.limits import Limits
from dlrm.serving.model import BackEnd
from dlrm.serving.repository import Repository
from dlrm.serving.server import Address, Server
from dlrm.serving.supervisor import Post, supervise
from dlrm.training.device import DeviceName


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeResult:
    """What a server did, up to its end."""

    url: str
    models: list[dict[str, Any]]
    """Of each version that was loaded at the end: `name`, `version`, `requests` that were answered,
    `rows` that were scored."""

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {"url": self.url, "models": self.models}

    def __rich__(self) -> Text:
        lines = [
            f"{model['name']}, version {model['version']}: {model['requests']:,} requests, "
            f"{model['rows']:,} rows"
            for model in self.models
        ]
        return Text("\n".join(["Stopped; all that was accepted is answered.", *lines]))


def serve(
    runs: Annotated[Sequence[str], tyro.conf.Positional, arg(metavar="RUN [RUN ...]")],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    grpc_port: Annotated[int | None, arg(metavar="INT")] = None,
    runtime: Annotated[str, arg(metavar="NAME")] = "eager",
    tables: Literal["trained"] | TableDtype = "trained",
    device: DeviceName = "auto",
    shadow: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], arg(metavar="MODEL=SHADOW")] = (),
    token_file: Annotated[Path | None, arg(metavar="FILE")] = None,
    tls_cert: Annotated[Path | None, arg(metavar="FILE")] = None,
    tls_key: Annotated[Path | None, arg(metavar="FILE")] = None,
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
) -> ServeResult:
    """Serve trained models over HTTP, until SIGTERM or Ctrl-C.

    `POST /score` takes raw rows as JSON; the Open Inference Protocol v2 (Triton, KServe) takes
    encoded ones, over gRPC, too; /openapi.json says the rest.

    Args:
        runs: Run directories, or NAME=RUN; of one name several are its versions 1, 2, ...
        host: Where to listen; 0.0.0.0 for whoever reaches this machine.
        port: Where to listen; 0 for a port that is free.
        grpc_port: Where gRPC listens beside HTTP (Triton's is 8001); nowhere where it is not given.
        runtime: What runs the models: eager, torch, aoti, onnx, openvino or jax.
        tables: Format of the rows of embedding tables.
        device: Where eager computes; auto is a GPU where there is one.
        shadow: A model that gets the requests of another once they are answered, to be compared.
        token_file: Holds a token that clients must send as Authorization: Bearer TOKEN.
        tls_cert: Certificates of TLS, PEM.
        tls_key: The key of TLS, PEM.
        limits: What a request may ask.

    Raises:
        UsageError: No run is named.
        MissingExtraError: The extra `serve` is not installed.
        RunError: A run has no model yet.
        ConfigError: A setting has no meaning, or the port is taken.

    """
    words = [runs] if isinstance(runs, str | Path) else list(runs)
    if not words:
        raise UsageError("no run to serve: give at least one RUN")
    address = Address(host=host, port=port, grpc_port=grpc_port, tls_cert=tls_cert, tls_key=tls_key)
    supervised_by = Post.mine
    if supervised_by is not None and supervised_by.ports is not None:
        http, grpc = supervised_by.ports
        address = replace(address, port=http, grpc_port=grpc)
    token = None if token_file is None else _token(token_file)
    back_end = BackEnd(runtime=runtime, tables=tables, device=device)
    repository = Repository([str(word) for word in words], back_end)
    server = Server(repository, limits, address, token, shadow)
    if not address.is_loopback and token is None:
        terminal.say(
            [f"Whoever reaches {host} may use this server: --token-file asks for a token."]
        )
    _say_warnings()

    def ready() -> None:
        if supervised_by is not None:
            # Nothing of what is loaded becomes garbage: to look through it would take 100 ms.
            gc.freeze()
            supervised_by.ready((server.port, server.grpc_port))
        names = ", ".join(
            f"{model.name} (version {model.version})" for model in repository.models()
        )
        grpc = "" if server.grpc_port is None else f"; gRPC at {host}:{server.grpc_port}"
        terminal.say([f"Serving {names} at {server.url}{grpc}; Ctrl-C ends it"])

    server.run(ready)
    models = [
        {
            "name": model.name,
            "version": model.version,
            "requests": model.statistics.success,
            "rows": model.statistics.rows,
        }
        for model in repository.models()
    ]
    return ServeResult(url=server.url, models=models)


def supervised(run: Callable[[], int]) -> int:
    """Run the command line of a server in a process that is replaced where it dies.

    Returns:
        The exit status.

    """
    _say_warnings()
    return supervise(run)


def _say_warnings() -> None:
    logging.basicConfig(format="dlrm: %(message)s", level=logging.WARNING)


def _token(file: Path) -> str:
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: no token can be read ({error})") from None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{file}: expected a token of printable ASCII without blanks")
    return token
