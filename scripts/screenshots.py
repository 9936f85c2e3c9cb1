"""Make the pictures in docs/images: a server with the built-in model, some traffic, a real Chromium. Needs the extra `test`.

.venv/bin/python scripts/screenshots.py [FOLDER]
"""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")
CONFIG = """
[prices]
machine_usd_per_hour = 1.2

[cache]
exact = "on"

[[guard.rules]]
kind = "pii"
action = "redact"

[[guard.rules]]
kind = "regex"
name = "codenames"
patterns = ["Blue Heron"]

[[guard.rules]]
kind = "length"
name = "long"
max_chars = 30
dry_run = true

[router]
aliases = { fast = "penstock-mini" }
"""
REDACTED = "Write a short letter to jane.doe@example.org about the river."
QUESTIONS = (
    REDACTED,
    "What is 17 + 25?",
    "Tell me a story.",
    "What is the capital of France?",
    "Hello!",
    "How many metres are 3 miles?",
    "Who is Blue Heron?",
)
WARM_UP_S = 62  # the charts show a minute


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with serving() as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        over = threading.Event()
        traffic = threading.Thread(target=load, args=(port, over))
        traffic.start()
        try:
            time.sleep(WARM_UP_S)
            for scheme in ("light", "dark"):
                shoot(browser, f"http://127.0.0.1:{port}", folder, scheme)
            shoot_phone(browser, f"http://127.0.0.1:{port}", folder)
        finally:
            over.set()
            traffic.join()


def shoot(browser: Browser, url: str, folder: Path, scheme: str) -> None:
    page = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme).new_page()  # type: ignore[arg-type]
    page.goto(url)
    ask(page, "Tell me a short story about a river.")
    page.screenshot(path=folder / f"chat-{scheme}.png")
    page.goto(f"{url}/#live")
    page.wait_for_timeout(2500)
    page.screenshot(path=folder / f"live-{scheme}.png")
    page.goto(f"{url}/#requests")
    page.wait_for_selector("#rows tr.ok")
    page.click("#rows tr.ok:nth-child(n+6):not(:has(.hit))")
    page.wait_for_selector("#detail .fall")
    page.screenshot(path=folder / f"requests-{scheme}.png")
    page.goto(url)
    page.click("#clear")
    ask(page, REDACTED)
    page.screenshot(path=folder / f"decisions-{scheme}.png")
    page.context.close()


def shoot_phone(browser: Browser, url: str, folder: Path) -> None:
    page = browser.new_context(viewport={"width": 390, "height": 780}, device_scale_factor=2).new_page()
    page.goto(url)
    ask(page, QUESTIONS[1])
    page.click(".price .how")
    page.wait_for_timeout(300)
    page.screenshot(path=folder / "phone.png")
    page.context.close()


def ask(page: Page, question: str) -> None:
    page.fill("#prompt", question)
    page.click("#send")
    page.wait_for_selector(".price .how, .oops")
    page.wait_for_timeout(200)


def load(port: int, over: threading.Event) -> None:
    """Requests that come and go in waves, some of them wrong."""
    begun = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        while not over.wait(random.expovariate(7 + 5 * math.sin((time.monotonic() - begun) / 9))):
            pool.submit(send, port)


def send(port: int) -> None:
    chosen = random.random()
    model = "fast" if chosen < 0.3 else "no-such-model" if chosen > 0.98 else "penstock-mini"
    body = {
        "model": model,
        "messages": [{"role": "user", "content": random.choice(QUESTIONS)}],
        "max_tokens": random.choice((8, 24, 48)),
        "stream": random.random() < 0.7,
        **({"temperature": 0} if random.random() < 0.3 else {}),
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
    connection.getresponse().read()
    connection.close()


@contextmanager
def serving() -> Iterator[int]:
    """A server of its own, on a free port, with its files in a folder that goes away."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as name:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        config = Path(name) / "penstock.toml"
        config.write_text(CONFIG)
        command = [sys.executable, "-m", "penstock", "serve", "--port", str(port), "--config", str(config)]
        environment = {**os.environ, "PENSTOCK_SERVER__DATA_DIR": str(Path(name) / "data")}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        try:
            wait_for(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def wait_for(port: int) -> None:
    for _ in range(300):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/ready")
                if connection.getresponse().status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
