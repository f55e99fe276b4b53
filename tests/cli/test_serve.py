"""graftlm serve: bad input is found before anything is loaded, and Ctrl-C is a clean end."""

import importlib.util
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Command, refused
from graftlm.adaptation.store import load_graft
from graftlm.adaptation.task_encoder import save_task_encoder


@pytest.fixture
def encoder(graft_folder: Path, tmp_path: Path) -> Path:
    """A task encoder as it is before tuning."""
    tasks = [{"name": "t", "max_new_tokens": 8}]
    save_task_encoder(load_graft(graft_folder), tmp_path / "e", name="t", tasks=tasks, run={})
    return tmp_path / "e"


def test_wrong_choices(graftlm: Command, graft_folder: Path, encoder: Path, tmp_path: Path) -> None:
    serve = ("serve", graft_folder, "--port", 0)
    for pair in ("x", "=y", "x="):
        refused(graftlm(*serve, "--task-encoder", pair), f"--task-encoder is {pair!r}", "NAME=DIR")
    twice = ("--task-encoder", f"x={encoder}", "--task-encoder", "x=other")
    refused(graftlm(*serve, *twice), "the name 'x' twice")
    refused(graftlm(*serve, "--task-encoder", f"x={tmp_path / 'gone'}"), "gone is not a task encoder")
    refused(graftlm(*serve, "--task-encoder", f"x y={encoder}"), "'x y' cannot be a task encoder's name")
    refused(graftlm(*serve, "--task-encoder", f"{graft_folder.name}={encoder}"), "the name of the model itself")
    refused(graftlm("serve", tmp_path / "gone", "--port", 0), "gone")
    for host in ("no.such.host.invalid", "x" * 70 + ".org"):
        refused(graftlm(*serve, "--host", host), f"Cannot listen on {host}", "--host")


def test_an_encoder_of_another_decoder(
    graftlm: Command, tiny_lm: Callable[..., Any], encoder: Path, tmp_path: Path
) -> None:
    assert graftlm("adapt", tiny_lm("gemma2", seed=1)[1], "--out", tmp_path / "other").code == 0
    serve = ("serve", tmp_path / "other", "--port", 0)
    refused(graftlm(*serve, "--task-encoder", f"x={encoder}"), "tuned on another decoder")


def test_key_files(graftlm: Command, graft_folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    serve = ("serve", graft_folder, "--port", 0, "--api-key-file", keys)
    refused(graftlm(*serve), "Cannot read", "one API key per line")
    keys.write_text("\n \n")
    refused(graftlm(*serve), "holds no API key")
    keys.write_bytes(b"\xff\xfe")
    refused(graftlm(*serve), "not text in UTF-8")


def test_a_port_in_use_is_found_before_anything_is_loaded(graftlm: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused(graftlm("serve", "no-such-model", "--port", port), f"Port {port} of 127.0.0.1 is in use", "--port")


def test_missing_packages(graftlm: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    refused(graftlm("serve", "no-such-model"), "needs uvicorn; install it with: pip install 'graftlm[serve]'")


@pytest.fixture
def server(graft_folder: Path, encoder: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "keys").write_text("one\ntwo\n")
    command = [str(Path(sys.executable).parent / "graftlm"), "serve", str(graft_folder), "--port", "0"]
    command += ["--task-encoder", f"first={encoder}", "--task-encoder", f"second={encoder}"]
    command += ["--api-key-file", str(tmp_path / "keys")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_server_finishes_what_runs(
    server: subprocess.Popen[str], graft_folder: Path, stop: signal.Signals
) -> None:
    assert server.stderr is not None
    ready = server.stderr.readline()
    found = re.fullmatch(rf"Serving {graft_folder.name}, first, second on (http://127\.0\.0\.1:\d+)\n", ready)
    assert found, ready

    body = json.dumps({"model": "second", "prompt": "name[a]", "max_tokens": 100, "stream": True}).encode()
    headers = {"content-type": "application/json", "authorization": "Bearer two"}
    request = urllib.request.Request(f"{found[1]}/v1/completions", body, headers)
    with urllib.request.urlopen(request) as stream:
        assert json.loads(stream.readline().removeprefix(b"data: "))["model"] == "second"
        server.send_signal(stop)
        assert stream.read().endswith(b"data: [DONE]\n\n")
    out, err = server.communicate(timeout=20)
    assert (server.returncode, out, err) == (0, "", "")
