"""graftlm serve: one decoder with any number of task encoders over HTTP."""

from __future__ import annotations

import errno
import importlib.util
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graftlm.cli.common import MODEL_HELP, load
from graftlm.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI


def serve(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    task_encoder: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=DIR", help="Folder that graftlm tune wrote, and what clients call it; repeatable."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Keys, one per line; clients must then send one of them.")
    ] = None,
    max_batch: Annotated[int, typer.Option(help="Requests decoded together.", min=1)] = 32,
    max_waiting: Annotated[
        int, typer.Option(help="Requests that may wait; further ones get status 503.", min=1)
    ] = 1024,
    allow_task_encoder_changes: Annotated[
        bool,
        typer.Option("--allow-task-encoder-changes", help="Let clients add (from folders of this machine) and remove."),
    ] = False,
) -> None:
    """Answer requests for many tasks with one decoder, in the manner of the OpenAI API."""
    folders = _named(task_encoder or [])
    check_installed()
    keys = [] if api_key_file is None else _keys(api_key_file)
    with _listen(host, port) as listener:
        from graftlm import Engine
        from graftlm.adaptation.task_encoder import read_manifest
        from graftlm.serving.http.app import create_app

        for folder in folders.values():
            read_manifest(folder)
        graft, tokenizers, _ = load(model)
        name = Path(model).resolve().name
        with Engine(
            graft, tokenizers, task_encoders=folders, name=name, max_batch=max_batch, max_waiting=max_waiting
        ) as engine:
            app = create_app(engine, keys, allow_task_encoder_changes=allow_task_encoder_changes)
            names = ", ".join(served.name for served in engine.all_served())
            _run(app, listener, f"Serving {names} on {_address(listener)}")


def _run(app: FastAPI, listener: socket.socket, ready: str) -> None:
    """Serve until Ctrl-C or SIGTERM, then answer what was accepted; a second Ctrl-C ends at once."""
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            typer.echo(ready, err=True)

    server = Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    # uvicorn sends itself the signal again once it has stopped; with this handler that does nothing.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    server.run(sockets=[listener])


def _named(pairs: list[str]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for pair in pairs:
        name, separator, folder = pair.partition("=")
        if not (name and separator and folder):
            raise ConfigError(f"--task-encoder is {pair!r}; write NAME=DIR.")
        if name in named:
            raise ConfigError(f"--task-encoder gives the name {name!r} twice; choose another for one of them.")
        named[name] = Path(folder)
    return named


def check_installed() -> None:
    """Raises: ConfigError that says what to install, without the packages of the server."""
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"The server needs {' and '.join(missing)}; install it with: pip install 'graftlm[serve]'")


def _keys(path: Path) -> list[str]:
    try:
        keys = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise ConfigError(f"Cannot read {path} ({reason}); give a file with one API key per line.") from error
    if not keys:
        raise ConfigError(f"{path} holds no API key; write one per line.")
    return keys


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, taken before the model is loaded, so that a port in use is found at once."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            problem = f"Port {port} of {host} is in use; choose another --port, or 0 for a free one."
        else:
            problem = f"Cannot listen on {host}, port {port} ({error.strerror}); choose another --host or --port."
        raise ConfigError(problem) from error
    except UnicodeError as error:
        raise ConfigError(f"Cannot listen on {host}, which is no name of a host; choose another --host.") from error


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
