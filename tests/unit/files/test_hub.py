"""Ids of the Hugging Face hub, against a server that speaks its protocol on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "c" * 40
FILES = {
    name: f"{{\"content of\": \"{name}\"}}".encode()
    for name in (
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer.model", "merges.txt", "chat_template.jinja",
        "pytorch_model.bin", "model.pt", "consolidated.safetensors", "onnx/model.json", "README.md",
    )
}  # fmt: skip
WANTED = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer.model", "merges.txt", "chat_template.jinja"}
REFUSALS = {"org/gated": (403, "GatedRepo"), "org/absent": (401, "RepoNotFound"), "org/down": (500, "")}


class Hub(BaseHTTPRequestHandler):
    """Knows `org/tiny` and refuses some others."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        refusal = next((answer for repo, answer in REFUSALS.items() if repo in path), None)
        name = path.partition(f"/resolve/{COMMIT}/")[2]
        if refusal:
            self.answer(b"{}", refusal[0], {"X-Error-Code": refusal[1]})
        elif name:
            self.answer(FILES[name], 200, {"ETag": f'"{sha(FILES[name])}"', "X-Repo-Commit": COMMIT})
        elif "/tree/" in path:
            entries = [{"type": "file", "path": file, "size": len(content), "oid": sha(content)} for file, content in FILES.items()]
            self.answer(json.dumps(entries).encode(), 200, {})
        else:
            self.answer(json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": []}).encode(), 200, {})

    def answer(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the tests' output is not the place."""


def sha(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def located(repo: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`locate` in a process of its own: the hub's client reads its environment when it is imported."""
    code = (
        "import sys\nfrom penstock.core.errors import LoadError\nfrom penstock.files import locate\n"
        "try: print(locate(sys.argv[1], progress=sys.argv[2] == 'bar').path)\nexcept LoadError as error: print('LoadError:', error)"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", code, repo, environment.pop("PROGRESS", "bar")],
        env={**clean, "HF_HOME": str(home), **environment}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip


def test_only_what_is_needed_is_downloaded_and_never_a_pickle(endpoint: str, tmp_path: Path) -> None:
    done = located("org/tiny", tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0")
    folder = Path(done.stdout.strip())
    assert {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} == WANTED
    assert (folder / "config.json").read_bytes() == FILES["config.json"]
    assert "%|" in done.stderr  # the progress bar


def test_progress_can_be_silent(endpoint: str, tmp_path: Path) -> None:
    done = located("org/tiny", tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0", PROGRESS="none")
    assert Path(done.stdout.strip()).is_dir()
    assert "%|" not in done.stderr


def test_what_was_downloaded_is_found_offline(endpoint: str, tmp_path: Path) -> None:
    online = located("org/tiny", tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0")
    assert located("org/tiny", tmp_path, HF_HUB_OFFLINE="1").stdout == online.stdout


@pytest.mark.parametrize(
    ("repo", "said"),
    [
        ("org/gated", ["is gated", "ask for access at https://huggingface.co/org/gated", "HF_TOKEN"]),
        ("org/absent", ["has no model 'org/absent' that you may read", "check the spelling"]),
        ("org/down", ["cannot be reached", "hf download org/down"]),
    ],
)
def test_each_refusal_says_what_to_do(endpoint: str, tmp_path: Path, repo: str, said: list[str]) -> None:
    output = located(repo, tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0").stdout
    assert output.startswith("LoadError:")
    for part in said:
        assert part in output


@pytest.mark.parametrize(
    "environment",
    [{"HF_HUB_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}],
    ids=["set offline", "no network"],
)
def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, environment: dict[str, str]) -> None:
    output = located("org/none", tmp_path, **environment).stdout
    assert "LoadError: org/none is not in the local cache and Hugging Face cannot be reached" in output
    assert "unset HF_HUB_OFFLINE" in output
    assert "hf download org/none" in output
