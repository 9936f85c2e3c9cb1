"""What somebody sees who opens the page, in a real Chromium over a real server; skipped where there is none.

The tests run in order over one server: at first it is new, at the end it has keys.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from serving import Server

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")
CONFIG = """
[prices]
machine_usd_per_hour = 1.2

[cache]
exact = "on"

[[guard.rules]]
kind = "regex"
name = "codenames"
action = "redact"
patterns = ["Blue Heron"]

[[guard.rules]]
kind = "regex"
name = "forbidden"
patterns = ["Black Swan"]

[[guard.rules]]
kind = "length"
name = "short"
max_chars = 40
dry_run = true
"""

QUESTION = "What is 17 + 25?"

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(serve_module: Callable[..., Server]) -> Server:
    """One with the built-in model, a price for the machine, and the cache on."""
    return serve_module("penstock-mini", config=CONFIG)


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Iterator[Open]:
    """Open the page at a view, in a fresh profile. It may complain of nothing and ask nobody else."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    elsewhere: list[str] = []

    def open_at(view: str = "chat", *, width: int = 1280, scheme: str = "light", expect: str | None = None) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)  # type: ignore[arg-type]
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith((server.url, "data:")) else elsewhere.append(request.url))
        page.goto(f"{server.url}/#{view}")
        page.wait_for_selector(expect or "#health .dot.good")
        return page

    open_at.complaints = complaints  # type: ignore[attr-defined]
    yield open_at
    for context in contexts:
        context.close()
    assert elsewhere == []
    assert complaints == []


def ask(server: Server, count: int, **changes: object) -> None:
    """So many answers, some at a time."""
    body = {"model": "penstock-mini", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 8, **changes}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=30), range(count)))


def make_key(server: Server, *flags: str) -> str:
    """A key of the server's, made in another process, once it counts."""
    environment = {**os.environ, "PENSTOCK_SERVER__DATA_DIR": str(server.log.parent / "data")}
    command = [sys.executable, "-m", "penstock", "keys", "create", "boss" if flags else "plain", *flags]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    key: str = re.findall(r"sk-ps-\S+", shown)[0]
    server.until(lambda: status(server) == 401 and status(server, key) == 200, "the key counts")
    return key


def status(server: Server, key: str = "") -> int:
    return httpx.get(f"{server.url}/v1/models", headers={"x-api-key": key} if key else {}).status_code


def card(page: Page, title: str) -> str:
    """The large number of a chart."""
    return page.locator(f'article[aria-label="{title}"] .now').inner_text()


def background(page: Page) -> int:
    """How bright the page is: 0 to 255."""
    found = re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
    return sum(map(int, found[:3])) // 3


def test_a_new_server_teaches_its_first_request(open_page: Open, server: Server) -> None:
    page = open_page("live")
    expect(page.locator("#lesson")).to_contain_text("Nothing has come in yet")
    expect(page.locator("#lesson pre")).to_contain_text(f"curl {server.url}/v1/chat/completions")
    page.click("#lesson >> text=Anthropic")
    expect(page.locator("#lesson pre")).to_contain_text("client.messages.create")
    names = page.locator("#model option").all_text_contents()
    assert "penstock-mini" in names
    assert not any("minilm" in name for name in names)  # it makes no answers
    page.keyboard.press("3")
    expect(page.locator("#none")).to_contain_text("No request yet")
    expect(page.locator("table")).to_be_hidden()


def test_an_answer_tells_its_route_why_cache_speed_and_price(open_page: Open) -> None:
    page = open_page()
    page.click(f"text={QUESTION}")
    line = page.locator(".price .how")
    expect(page.locator(".said")).to_contain_text("42")
    expect(line).to_contain_text("penstock-mini/penstock-mini")
    expect(line).to_contain_text("cache bypass")
    assert re.search(r"first token [\d.]+ (ms|s) · [\d.,]+ tokens/s · \$0\.\d+", line.inner_text())
    side = page.locator("#inspector")
    expect(side.locator(".why")).to_contain_text("serves 'penstock-mini'")
    assert side.locator(".lane > span:first-child").all_inner_texts() == ["guard", "cache", "route", "penstock-mini"]
    expect(side.locator(".judged .lines")).to_contain_text("Not looked up")
    expect(side).to_contain_text("to first token")


def test_the_same_question_again_comes_from_the_cache_and_costs_nothing(open_page: Open) -> None:
    page = open_page()
    page.fill("#temperature", "0")
    for _ in range(2):
        page.fill("#prompt", "What is the capital of France?")
        page.keyboard.press("Enter")
        page.wait_for_selector(".price .how")
        last = page.locator(".price .how").inner_text()
        page.click("#clear")
    assert "cache hit" in last
    assert "$0" in last


def test_an_answer_can_be_stopped_and_asked_for_again(open_page: Open) -> None:
    page = open_page()
    page.fill("#prompt", "Tell me a long story about a dragon.")
    page.click("#show_system")
    page.fill("#system", "You tell stories.")
    page.click("#send")
    page.wait_for_selector(".said.writing")
    page.keyboard.press("Escape")
    expect(page.locator("#send")).to_have_text("Send")
    page.click("text=Again")
    page.wait_for_selector(".price .how")
    assert page.locator(".turn.assistant").count() == 1


def test_a_refusal_says_what_is_wrong_where_the_answer_would_be(open_page: Open) -> None:
    page = open_page()
    page.fill("#max_tokens", "1000000")
    page.fill("#prompt", "hello")
    page.click("#send")
    expect(page.locator(".turn .oops")).to_contain_text("1000000")
    open_page.complaints.clear()  # type: ignore[attr-defined]  # the browser says 400 in its console


def test_what_guards_and_cache_decided_is_told_in_words(open_page: Open, server: Server) -> None:
    page = open_page(width=390, scheme="dark")
    page.fill("#prompt", "Is Blue Heron a good name for a boat that sails on the river?")
    page.click("#send")
    page.click(".price .how")
    said = page.locator("#inspector .judged .lines > div")
    expect(said.filter(has_text="Redacted by codenames")).to_contain_text("guard")
    expect(said.filter(has_text="short")).to_contain_text("shadow")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    ask(server, 1, messages=[{"role": "user", "content": "Where is Black Swan?"}])
    ask(server, 2, temperature=0)
    page = open_page("requests")
    refused = page.locator("#rows tr.failed", has_text="refused").first
    expect(refused).to_contain_text("content_filter")
    refused.click()
    expect(page.locator("#detail .judged .lines")).to_contain_text("Refused by forbidden")
    page = open_page("live")
    page.wait_for_selector('article[aria-label="Decisions"] canvas')
    for word in ("from the cache", "redacted", "refused", "in shadow"):
        expect(page.locator('article[aria-label="Decisions"] .keys')).to_contain_text(word)


def test_charts_move_under_load(open_page: Open, server: Server) -> None:
    page = open_page("live")
    page.wait_for_selector('article[aria-label="Requests"] canvas')
    picture = 'document.querySelector(`article[aria-label="Requests"] canvas`).toDataURL()'
    before = page.evaluate(picture)
    ask(server, 40)
    page.wait_for_function('document.querySelector(`article[aria-label="Requests"] .now`).textContent.match(/[1-9]/)')
    for title in ("Time to first token", "Time per output token", "Tokens", "Cost", "Engines"):
        assert re.search("[1-9]", card(page, title)), title
    assert page.locator("article.card").count() == 10
    expect(page.locator('article[aria-label="Routes"] .keys')).to_contain_text("penstock-mini/penstock-mini")
    assert page.evaluate(picture) != before
    page.keyboard.press("p")
    held = page.evaluate(picture)
    page.wait_for_timeout(1300)
    assert page.evaluate(picture) == held
    page.click("text=15 min")
    expect(page.locator('[aria-pressed="true"]:has-text("15 min")')).to_be_visible()


def test_the_list_shows_each_request_and_its_way_from_the_keyboard_alone(open_page: Open, server: Server) -> None:
    ask(server, 2, model="no-such-model")
    page = open_page("requests")
    page.wait_for_selector("#rows tr.failed")
    page.keyboard.press("j")
    page.wait_for_selector("#detail .fall .lane")
    assert re.search(r"#requests/\d+$", page.url)
    page.keyboard.press("Escape")
    expect(page.locator("#detail")).to_be_hidden()
    page.keyboard.press("/")
    page.keyboard.type("no-such")
    expect(page.locator("#rows tr")).to_have_count(2)
    expect(page.locator("#rows tr").first).to_contain_text("model_not_found")
    page.locator("#rows tr").first.click()
    expect(page.locator("#detail .oops")).to_contain_text("does not exist")


def test_a_request_of_the_chat_is_found_in_the_list(open_page: Open) -> None:
    page = open_page()
    page.click(f"text={QUESTION}")
    page.click("text=Show it among the requests")
    expect(page.locator("#detail")).to_contain_text(re.compile(r"\d\d:\d\d:\d\d · penstock-mini"))


def test_it_is_dark_where_the_system_is_or_where_that_was_chosen(open_page: Open) -> None:
    assert background(open_page(scheme="light")) > 200
    assert background(open_page(scheme="dark")) < 60
    page = open_page(scheme="light")
    for _ in range(2):  # light, dark
        page.click("#theme")
    assert background(page) < 60
    page.reload()
    assert background(page) < 60


@pytest.mark.parametrize("view", ["chat", "live", "requests"])
def test_it_fits_a_phone(open_page: Open, view: str) -> None:
    page = open_page(view, width=390)
    page.wait_for_selector({"chat": ".lesson", "live": "canvas", "requests": "#rows tr"}[view])
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shown = "[...document.querySelectorAll('main *')].filter((each) => each.offsetParent && !each.closest('.u-wrap, pre'))"
    wide = f"{shown}.filter((each) => each.getBoundingClientRect().right > 391)"
    assert page.evaluate(f"{wide}.map((each) => each.outerHTML.slice(0, 90))") == []
    if view == "requests":
        page.locator("#rows tr").first.click()
        expect(page.locator("#detail .big")).to_be_visible()


def test_a_strangers_text_stays_text(open_page: Open, server: Server) -> None:
    ask(server, 1, model="<img src=x onerror=alert(1)>")
    page = open_page("requests")
    expect(page.locator("#rows")).to_contain_text("<img src=x")
    assert page.locator("#rows img").count() == 0


def test_a_server_with_keys_shows_the_page_to_admins_alone(open_page: Open, server: Server) -> None:
    plain, admin = make_key(server), make_key(server, "--admin")
    assert httpx.get(f"{server.url}/").status_code == 401
    assert httpx.get(f"{server.url}/static/app.js").status_code == 401
    page = open_page(expect="#key")
    for wrong in ("sk-ps-wrong", plain):
        page.fill("#key", wrong)
        page.click("#go")
        expect(page.locator("#error")).not_to_be_empty()
    page.fill("#key", admin)
    page.click("#go")
    page.wait_for_selector("#health .dot.good")
    assert page.evaluate("document.cookie") == ""
    page.click(f"text={QUESTION}")
    expect(page.locator(".said")).to_contain_text("42")
    page.keyboard.press("Escape")
    page.click("nav >> text=Requests")
    expect(page.locator("#rows tr").first).to_contain_text("boss")
    page.click("#logout")
    page.wait_for_selector("#key")
    open_page.complaints.clear()  # type: ignore[attr-defined]  # the browser says 401 and 403 in its console


def test_a_server_that_stops_waits_for_no_page(open_page: Open, server: Server) -> None:
    page = open_page(expect="#key")
    page.fill("#key", make_key(server, "--admin"))
    page.click("#go")
    page.wait_for_selector("#health .dot.good")
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(25)  # or it raises: drain_s is 30, and the feed of an open page never ends by itself
    expect(page.locator("#health")).to_have_text("no connection")
    open_page.complaints.clear()  # type: ignore[attr-defined]  # the browser says so in its console
