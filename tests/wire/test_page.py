"""The page's routes: files that a browser may trust, the feed, the request list."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.types import Message

from penstock.core.config import PageSettings, ServerSettings
from penstock.gateway.app import build
from penstock.gateway.page import Page, login_page
from penstock.gateway.page.files import FOLDER
from penstock.gateway.page.page import MOST_ROWS
from penstock.pipeline import Pipeline
from penstock.router.fixed import FixedRouter
from penstock.trace import Trace
from penstock.trace.metrics import Metrics
from penstock.trace.window import Window
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.fake import FakeUpstream, Script

SCRIPTS = sorted(path for path in FOLDER.rglob("*.js") if path.parent == FOLDER)


@dataclass
class Served:
    """A gateway with the page, in this process."""

    app: Starlette
    page: Page
    http: httpx.AsyncClient

    async def chat(self, **changes: object) -> httpx.Response:
        body = {"model": "fake", "messages": [{"role": "user", "content": "hello"}], "penstock": {"explain": True}, **changes}
        return await self.http.post("/v1/chat/completions", json=body)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    upstreams = {"here": FakeUpstream(Script())}
    window, metrics = Window(PageSettings()), Metrics(CollectorRegistry(), ["fake"])
    trace = Trace(metrics, window)
    pipeline = Pipeline(dispatch=Dispatch(upstreams, trace=trace), router=FixedRouter(routes_by_model(upstreams)), trace=trace)
    page = Page(pipeline, window, PageSettings())
    app = build(pipeline, ServerSettings(), metrics, page=page)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        yield Served(app, page, http)


@dataclass
class Watched:
    """A feed as one viewer receives it."""

    app: Starlette
    query: bytes = b"step=1"
    body: bytes = b""
    status: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        scope = {
            "type": "http", "method": "GET", "path": "/admin/live", "raw_path": b"/admin/live", "query_string": self.query, "headers": [],
            "scheme": "http", "server": ("gateway", 80), "http_version": "1.1", "asgi": {"version": "3.0"},
        }  # fmt: skip
        await self.app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")

    @property
    def events(self) -> list[tuple[str, dict[str, object]]]:
        found = re.findall(rb"event: (\w+)\ndata: (.*)\n\n", self.body)
        return [(name.decode(), json.loads(data)) for name, data in found]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.events) < count:
                await asyncio.sleep(0.02)


async def test_a_browser_may_run_nothing_but_the_pages_own_files(served: Served) -> None:
    answer = await served.http.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script>|<style>| on\w+=| style=", answer.text)


async def test_every_file_that_the_page_names_is_served_and_nothing_comes_from_elsewhere(served: Served) -> None:
    html = (await served.http.get("/")).text
    names = {*re.findall(r'"(/static/[^"]+)"', html)}
    for script in SCRIPTS:
        text = script.read_text()
        names |= {f"/static/{name}" for name in re.findall(r'from "\./([^"]+)"', text)}
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    css = (FOLDER / "style.css").read_text()
    names |= {f"/static/{name}" for name in re.findall(r'url\("([^"]+)"\)', css)}
    assert len(names) > 10
    assert "http" not in css
    for name in names:
        assert (await served.http.get(name)).status_code == 200, name


def test_the_scripts_name_only_elements_that_are_there() -> None:
    there = set(re.findall(r'id="(\w+)"', (FOLDER / "index.html").read_text()))
    named = {name for script in SCRIPTS for name in re.findall(r'\$\("(\w+)"\)', script.read_text())}
    assert named - there == set()


def test_the_vendored_files_keep_their_licences() -> None:
    assert "MIT License" in (FOLDER / "vendor" / "uPlot.LICENSE.txt").read_text()
    assert "SIL Open Font License" in (FOLDER / "vendor" / "inter.LICENSE.txt").read_text()


def test_no_script_makes_markup_of_text() -> None:
    for script in SCRIPTS:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", script.read_text()), script.name


@pytest.mark.parametrize("name", ["../page.py", "%2e%2e/page.py", "..%2f..%2fapp.py", "login.html", "vendor", "", "nothing.js"])
async def test_nothing_but_the_pages_files_can_be_asked_for(served: Served, name: str) -> None:
    answer = await served.http.get(f"/static/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


async def test_a_file_is_sent_once_and_packed(served: Served) -> None:
    first = await served.http.get("/static/style.css", headers={"accept-encoding": "gzip"})
    assert first.headers["content-encoding"] == "gzip"
    assert first.text == (FOLDER / "style.css").read_text()
    again = await served.http.get("/static/style.css", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_login_runs_its_own_script_and_style_alone() -> None:
    html = login_page().decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "unsafe" not in policy[1]
    for part in ("script", "style"):
        (text,) = re.findall(rf"<{part}>(.*?)</{part}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{part}-src 'sha256-{digest}'" in policy[1]
    assert not re.search(r'(src|href)="(?!data:)', html)


async def test_the_list_tells_each_request_and_the_details_tell_what_the_answer_told(served: Served) -> None:
    answer = (await served.chat()).json()
    await served.chat(model="nope")
    listed = (await served.http.get("/admin/requests")).json()
    assert [row["outcome"] for row in listed["data"]] == ["failed", "ok"]
    assert [row["number"] for row in listed["data"]] == [2, 1]
    assert listed["data"][0]["code"] == "model_not_found"
    assert listed["total"] == 2
    details = (await served.http.get("/admin/requests/1")).json()
    told = {**answer["penstock"], "request_id": details["penstock"]["request_id"]}
    assert details["penstock"] == told
    assert details["row"]["route"] == told["route"] == "here/fake"
    assert (details["prompt"], details["answer"]) == (None, None)
    assert "hello" not in json.dumps(details)
    failed = (await served.http.get("/admin/requests/2")).json()
    assert "nope" in failed["failure"]["message"]


async def test_the_list_is_paged_by_number(served: Served) -> None:
    for _ in range(5):
        await served.chat()

    async def numbers(query: str) -> list[int]:
        return [row["number"] for row in (await served.http.get(f"/admin/requests?{query}")).json()["data"]]

    assert await numbers("limit=2") == [5, 4]
    assert await numbers("limit=2&before=4") == [3, 2]
    assert await numbers("after=3") == [5, 4]
    assert await numbers(f"limit={MOST_ROWS * 100}") == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("query", ["limit=-1", "limit=x", "before=1.5", "after=99999999999999999999", "limit=%D9%A3"])
async def test_a_wrong_number_is_refused_by_name(served: Served, query: str) -> None:
    answer = await served.http.get(f"/admin/requests?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.partition("=")[0]


@pytest.mark.parametrize("number", ["7", "99999999999999999999999", "x", "-1"])
async def test_a_request_that_is_not_remembered_is_not_found(served: Served, number: str) -> None:
    assert (await served.http.get(f"/admin/requests/{number}")).status_code == 404


async def test_the_upstreams_are_told_with_their_health(served: Served) -> None:
    (row,) = (await served.http.get("/admin/engines")).json()["data"]
    assert (row["name"], row["models"], row["health"]["state"], row["own"]) == ("here", ["fake"], "ready", False)


async def test_the_feed_greets_and_then_tells_each_second(served: Served) -> None:
    await served.chat()
    watched = Watched(served.app)
    task = asyncio.ensure_future(watched.run())
    await watched.until(2)
    await served.chat()
    await watched.until(4)
    names = [name for name, _ in watched.events]
    assert names == ["hello", *["tick"] * (len(names) - 1)]
    hello, first, *later = (data for _, data in watched.events)
    assert (hello["history"], hello["key"]) == (1000, "")
    assert [row["number"] for row in first["rows"]] == [1]  # type: ignore[attr-defined]
    points = {point["at"]: point for _, tick in watched.events[1:] for point in tick["points"]}  # type: ignore[attr-defined]
    assert sum(point["ended"] for point in points.values()) == later[-1]["total"] == 2
    watched.left.set()
    await task


async def test_the_feed_ends_with_the_server(served: Served) -> None:
    watched = Watched(served.app)
    task = asyncio.ensure_future(watched.run())
    await watched.until(2)
    served.page.stop()
    await asyncio.wait_for(task, 5)


async def test_the_feed_refuses_other_steps(served: Served) -> None:
    watched = Watched(served.app, query=b"step=0")
    await watched.run()
    assert watched.status == 400
    assert b"1, 2, 5 seconds go" in watched.body


async def test_without_the_page_there_is_no_such_route(served: Served) -> None:
    pipeline = Pipeline(dispatch=Dispatch({}), router=FixedRouter({}))
    app = build(pipeline, ServerSettings(), Metrics(CollectorRegistry(), []))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as http:
        assert (await http.get("/")).status_code == 404
