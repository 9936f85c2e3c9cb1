"""Who may ask what: without a key, with one, with a session; from this machine and from a page elsewhere."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Message

from penstock.core.config import PageSettings, ServerSettings
from penstock.core.types import Limits
from penstock.gateway.app import build
from penstock.gateway.auth import COOKIE, SESSION_S, Auth
from penstock.gateway.page import Page
from penstock.meter import NoPrices, Pricing
from penstock.meter.counters import MemoryCounters
from penstock.meter.database import open_database
from penstock.meter.keys import KeyRing, Keys, KeyScope
from penstock.meter.limits import Limiter
from penstock.pipeline import Pipeline
from penstock.router.fixed import FixedRouter
from penstock.trace import Trace
from penstock.trace.metrics import Metrics
from penstock.trace.window import Window
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.fake import FakeUpstream

SECRET = b"a secret of the tests, 32 bytes."
HERE = "http://127.0.0.1:8000"
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}


class Clock:
    now = 1_798_804_800.0

    def __call__(self) -> float:
        return self.now


class Cent:
    """Two cents for each call."""

    def cost(self, route: object, usage: object, use: object) -> Decimal:
        return Decimal("0.02")

    def worst(self, route: object, prompt_tokens: int, completion_tokens: int) -> Decimal:
        return Decimal("0.02")


class Site:
    """A gateway with keys, and browsers and programs that ask it."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self.keys = keys
        self.clock = clock
        self.pricing: Pricing = NoPrices()
        self.ring = KeyRing(keys, 3600, clock=clock)
        self.app = self.serve()

    def serve(self, host: str = "127.0.0.1", *, is_open: bool = False) -> Starlette:
        settings = ServerSettings(host=host)
        upstreams = {"fake": FakeUpstream()}
        window = Window(PageSettings())
        pipeline = Pipeline(
            dispatch=Dispatch(upstreams),
            router=FixedRouter(routes_by_model(upstreams)),
            trace=Trace(window),
            pricing=self.pricing,
            admission=Limiter(MemoryCounters(660, clock=self.clock), clock=self.clock),
        )
        auth = Auth(self.ring, settings, is_open=is_open, login_page=b"<h1>log in</h1>", clock=self.clock)
        page = Page(pipeline, window, PageSettings())
        self.app = build(pipeline, settings, Metrics(CollectorRegistry(), ["fake"]), auth=auth, page=page)
        return self.app

    def key(self, **scope: object) -> str:
        _, token = self.keys.create("ana", KeyScope(**scope))  # type: ignore[arg-type]
        self.ring.refresh()
        return token

    def ask(self, method: str, path: str, url: str = HERE, **options: object) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=url) as client:
                return await client.request(method, path, **options)  # type: ignore[arg-type]

        return asyncio.run(ask())

    def get(self, path: str, **headers: str) -> int:
        return self.ask("GET", path, headers=headers).status_code

    def chat(self, **headers: str) -> httpx.Response:
        return self.ask("POST", "/v1/chat/completions", json=CHAT, headers={name.replace("_", "-"): text for name, text in headers.items()})

    def log_in(self, token: str) -> str:
        answer = self.ask("POST", "/login", json={"key": token})
        assert answer.status_code == 204, answer.text
        return answer.headers["set-cookie"].partition(";")[0].partition("=")[2]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    database, clock = open_database("sqlite", tmp_path), Clock()
    site = Site(Keys(database, SECRET, clock=clock), clock)
    site.ring.refresh()
    yield site
    database.close()


def paths(app: Starlette) -> list[tuple[str, str]]:
    routes = [route for route in app.routes if isinstance(route, Route)]
    return [(method, re.sub(r"{.*?}", "1", route.path)) for route in routes for method in sorted(route.methods or ())]


def test_a_server_on_loopback_without_keys_is_open(site: Site) -> None:
    assert site.chat().status_code == 200
    assert site.chat(authorization="Bearer whatever").status_code == 200
    assert site.get("/metrics") == 200


@pytest.mark.feature("keys")
def test_once_there_is_a_key_every_route_but_health_needs_one(site: Site) -> None:
    site.key()
    assert len(paths(site.app)) > 15
    statuses = {
        (method, path): site.ask(method, path).status_code for method, path in [*paths(site.app), ("GET", "/nowhere"), ("PUT", "/")]
    }
    assert {where for where, status in statuses.items() if status != 401} == {("GET", "/health"), ("HEAD", "/health")}


def test_a_key_is_taken_from_either_header(site: Site) -> None:
    token = site.key()
    assert site.chat(authorization=f"Bearer {token}").status_code == 200
    assert site.chat(authorization=f"bearer  {token}").status_code == 200
    assert site.chat(x_api_key=token).status_code == 200
    assert site.chat(authorization=f"Basic {token}").status_code == 401
    assert site.chat(authorization="Bearer nonsense", x_api_key=token).status_code == 401
    assert site.ask("POST", f"/v1/chat/completions?key={token}", json=CHAT).status_code == 401


def test_a_refusal_has_the_dialects_shape_and_says_what_to_do(site: Site) -> None:
    site.key()
    answer = site.chat()
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "Authorization: Bearer" in answer.json()["error"]["message"]
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["x-request-id"]
    assert site.ask("POST", "/v1/messages", json={}).json()["error"]["type"] == "authentication_error"


def test_neither_metrics_nor_the_page_is_for_every_key(site: Site) -> None:
    plain, admin = site.key(), site.key(admin=True)
    for path in ("/metrics", "/", "/static/app.js", "/admin/requests", "/admin", "/login", "/some/new/route"):
        assert site.get(path, authorization=f"Bearer {plain}") == 403, path
    for path in ("/metrics", "/", "/admin/requests"):
        assert site.get(path, authorization=f"Bearer {admin}") == 200, path


def test_a_key_for_some_routes_reaches_no_other(site: Site) -> None:
    token = site.key(routes=("/v1/models",))
    assert site.get("/v1/models", authorization=f"Bearer {token}") == 200
    assert site.get("/v1/models/fake", authorization=f"Bearer {token}") == 200
    assert site.get("/v1/modelsX", authorization=f"Bearer {token}") == 403
    refused = site.chat(authorization=f"Bearer {token}")
    assert refused.status_code == 403
    assert "it may call /v1/models" in refused.json()["error"]["message"]


def test_a_key_for_some_models_is_refused_the_others(site: Site) -> None:
    token = site.key(models=("other",))
    refused = site.chat(authorization=f"Bearer {token}")
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "permission_denied"


def test_a_key_for_some_models_sees_no_others(site: Site) -> None:
    one, other = ({"authorization": f"Bearer {site.key(models=(name,))}"} for name in ("fake", "other"))
    assert [card["id"] for card in site.ask("GET", "/v1/models", headers=one).json()["data"]] == ["fake"]
    assert site.ask("GET", "/v1/models", headers=other).json()["data"] == []
    assert [site.ask("GET", "/v1/models/fake", headers=key).status_code for key in (one, other)] == [200, 404]
    assert site.ask("POST", "/tokenize", headers=one, json={"prompt": "hi"}).status_code == 200
    assert site.ask("POST", "/tokenize", headers=other, json={"prompt": "hi"}).status_code == 403
    assert site.ask("POST", "/detokenize", headers=other, json={"tokens": [1]}).status_code == 403


@pytest.mark.feature("keys", "rate limits")
def test_limits_of_the_key_hold_and_are_told(site: Site) -> None:
    token = site.key(limits=Limits(requests_per_minute=2))
    statuses = [site.chat(authorization=f"Bearer {token}").status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = site.chat(authorization=f"Bearer {token}")
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 61


@pytest.mark.feature("keys", "budgets", "streaming")
def test_a_budget_that_warns_says_so_in_a_header(site: Site) -> None:
    site.pricing = Cent()
    site.serve()
    token = site.key(limits=Limits(budget_day_usd=Decimal("0.03"), budget_action="warn"))
    for stream in (False, True):
        answers = [
            site.ask("POST", "/v1/chat/completions", json={**CHAT, "stream": stream}, headers={"x-api-key": token}) for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [200, 200]
        warned = ["x-penstock-warning" in answer.headers for answer in answers]
        assert warned == ([True, True] if stream else [False, True])


def test_no_key_is_ever_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token, admin = site.key(), site.key(admin=True)
    for given in (token, token[:-1], token + "A"):
        assert given[-20:] not in site.chat(authorization=f"Bearer {given}").text
    site.ask("POST", "/login", json={"key": token})
    site.ask("POST", "/login", json={"keys": admin})
    site.ask("POST", "/login", content=f'{{"key": {admin}}}', headers={"content-type": "application/json"})
    cookie = site.log_in(admin)
    site.get("/admin/requests", cookie=f"{COOKIE}={cookie}")
    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert "/v1/chat/completions" in logged
    for secret in (token[-43:-1], admin[-43:-1], cookie):
        assert secret not in logged


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", ""])
def test_beyond_loopback_nobody_comes_in_without_a_key_unless_told_so(site: Site, host: str) -> None:
    site.serve(host)
    refused = site.chat()
    assert refused.status_code == 401
    assert "penstock keys create" in refused.json()["error"]["message"]
    assert site.get("/health") == 200
    site.serve(host, is_open=True)
    assert site.ask("POST", "/v1/chat/completions", "http://any.name", json=CHAT).status_code == 200


@pytest.mark.parametrize(
    "name", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "0.0.0.0", "[2001:db8::1]"]
)
def test_an_open_server_answers_to_its_own_name_alone(site: Site, name: str) -> None:
    assert site.ask("POST", "/v1/chat/completions", f"http://{name}:8000", json=CHAT).status_code == 403
    assert site.ask("GET", "/", f"http://{name}:8000").status_code == 403


@pytest.mark.parametrize("name", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "[::1]", "me.localhost"])
def test_loopback_has_several_names(site: Site, name: str) -> None:
    assert site.ask("POST", "/v1/chat/completions", f"http://{name}:8000", json=CHAT).status_code == 200
    assert site.ask("POST", "/v1/chat/completions", f"http://{name}", json=CHAT).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost:3000", "null", "http://127.0.0.1:8001", "http://127.0.0.1:80000"]
)
def test_an_open_server_refuses_pages_of_other_origins(site: Site, origin: str) -> None:
    assert site.chat(origin=origin).status_code == 403
    assert site.get("/admin/requests", origin=origin) == 403


def test_an_open_server_answers_its_own_page_and_followed_links(site: Site) -> None:
    assert site.chat(origin=HERE, sec_fetch_site="same-origin").status_code == 200
    assert site.ask("GET", "/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}).status_code == 200
    assert site.ask("GET", "/admin/live", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}).status_code == 403


def test_a_browser_without_a_session_sees_the_login(site: Site) -> None:
    site.key(admin=True)
    answer = site.ask("GET", "/")
    assert (answer.status_code, answer.text) == (401, "<h1>log in</h1>")
    assert answer.headers["content-type"].startswith("text/html")


def test_an_admins_session_opens_the_page_and_its_playground(site: Site) -> None:
    cookie = f"{COOKIE}={site.log_in(site.key(admin=True))}"
    assert site.get("/", cookie=f"other=1; {cookie}; more=2") == 200
    assert site.get("/admin/requests", cookie=cookie) == 200
    assert site.chat(cookie=cookie, origin=HERE, sec_fetch_site="same-origin").status_code == 200


def test_the_cookie_is_for_browsers_and_this_site_alone(site: Site) -> None:
    token = site.key(admin=True)
    plain = site.ask("POST", "/login", json={"key": token}).headers["set-cookie"]
    assert all(part in plain for part in ("HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={SESSION_S}"))
    assert token not in plain
    assert "Secure" not in plain
    assert "Secure" in site.ask("POST", "/login", "https://127.0.0.1:8000", json={"key": token}).headers["set-cookie"]
    assert f"{COOKIE}=;" in site.ask("POST", "/logout").headers["set-cookie"]


@pytest.mark.parametrize("headers", [
    {"origin": "https://evil.example"},
    {"origin": "http://127.0.0.1:3000"},
    {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
    {},
])  # fmt: skip
def test_a_session_is_of_no_use_to_another_page(site: Site, headers: dict[str, str]) -> None:
    cookie = f"{COOKIE}={site.log_in(site.key(admin=True))}"
    assert site.chat(cookie=cookie, **headers).status_code == 403


def test_a_session_ends_with_time_and_with_its_key(site: Site) -> None:
    key, token = site.keys.create("ana", KeyScope(admin=True))
    site.key(admin=True)

    def status() -> int:
        return site.get("/", cookie=f"{COOKIE}={cookie}")

    cookie = site.log_in(token)
    site.clock.now += SESSION_S - 1
    assert status() == 200
    site.clock.now += 1
    assert status() == 401
    cookie = site.log_in(token)
    _, rotated = site.keys.rotate(key.id, grace_s=3600)
    site.ring.refresh()
    assert status() == 401
    cookie = site.log_in(rotated)
    site.keys.revoke(key.id)
    site.ring.refresh()
    assert status() == 401


async def test_the_live_feed_ends_with_its_key(site: Site) -> None:
    key, token = site.keys.create("ops", KeyScope(admin=True))
    site.ring.refresh()
    told = asyncio.Event()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        told.set()

    scope = {
        "type": "http", "method": "GET", "path": "/admin/live", "raw_path": b"/admin/live", "query_string": b"", "scheme": "http",
        "headers": [(b"x-api-key", token.encode())], "server": ("gateway", 80), "http_version": "1.1", "asgi": {"version": "3.0"},
    }  # fmt: skip
    feed = asyncio.ensure_future(site.app(scope, receive, send))
    await asyncio.wait_for(told.wait(), 5)
    site.keys.revoke(key.id)
    site.ring.refresh()
    await asyncio.wait_for(feed, 5)


def test_a_session_cannot_be_forged(site: Site) -> None:
    key, _ = site.keys.create("ana", KeyScope(admin=True))
    over, _ = site.keys.create("bob", KeyScope(admin=True))
    site.keys.revoke(over.id)
    genuine = site.log_in(site.key(admin=True))
    id, expires_at, signature = genuine.split(".")
    later = str(int(expires_at) + 1)
    forged = [
        f"{id}.{later}.{signature}", f"{key.id}.{expires_at}.{signature}", f"{id}.{expires_at}.", f"{id}.{expires_at}", id, ".", "..",
        f"nobody.{later}.", f"{over.id}.{later}.", f".{later}.", f"{id}.{expires_at}.{signature}0", f"{id}.x.{signature}", "é.1.ü",
    ]  # fmt: skip
    for cookie in forged:
        status = site.ask("GET", "/", headers={"cookie": f"{COOKIE}={cookie}".encode("latin-1")}).status_code  # type: ignore[dict-item]
        assert status == 401, cookie
    assert site.get("/", cookie=f"{COOKIE}={genuine}") == 200


@pytest.mark.parametrize(("body", "status"), [
    ({"key": "sk-ps-nothing"}, 401), ({"key": 1}, 400), ({}, 400), ({"key": "x" * 5000}, 413), ({"key": "x", "more": 1}, 400),
])  # fmt: skip
def test_a_login_without_a_good_key_is_refused(site: Site, body: object, status: int) -> None:
    site.key(admin=True)
    answer = site.ask("POST", "/login", json=body)
    assert answer.status_code == status
    assert "set-cookie" not in answer.headers


def test_only_an_admins_key_logs_in_and_only_from_this_site(site: Site) -> None:
    plain, admin = site.key(), site.key(admin=True)
    assert site.ask("POST", "/login", json={"key": plain}).status_code == 403
    foreign = {"origin": "https://evil.example"}
    assert site.ask("POST", "/login", json={"key": admin}, headers=foreign).status_code == 403
    assert site.ask("POST", "/login", data={"key": admin}).status_code == 400
    assert site.ask("POST", "/logout", headers=foreign).status_code == 403


def test_an_open_server_has_no_login(site: Site) -> None:
    answer = site.ask("POST", "/login", json={"key": "x"})
    assert answer.status_code == 400
    assert "no keys" in answer.json()["error"]["message"]


def test_what_a_key_may_do_follows_it_into_the_request(site: Site, make_recorder: Callable[[Site], list[str]]) -> None:
    seen = make_recorder(site)
    one, two = site.key(), site.key()
    for token in (one, two, one):
        assert site.chat(authorization=f"Bearer {token}").status_code == 200
    assert seen[0] == seen[2] != seen[1]
    assert "" not in seen


@pytest.fixture
def make_recorder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Site], list[str]]:
    """Notes the tenant of each request."""

    def make(site: Site) -> list[str]:
        seen: list[str] = []
        run = Pipeline.begin

        def begin(pipeline: Pipeline, request: object) -> object:
            seen.append(request.tenant)  # type: ignore[attr-defined]
            return run(pipeline, request)  # type: ignore[arg-type]

        monkeypatch.setattr(Pipeline, "begin", begin)
        return seen

    return make
