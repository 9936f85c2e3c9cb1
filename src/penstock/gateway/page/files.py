"""The page's files, read once, and the headers that let a browser run nothing else."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from pathlib import Path

from msgspec import Struct
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

FOLDER = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFETY = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
INDEX, LOGIN = "index.html", "login.html"


class StaticFile(Struct, frozen=True):
    """One file as it is sent. `tag` changes with its content."""

    kind: str
    body: bytes
    packed: bytes  # gzip
    tag: str

    def answer(self, request: HTTPRequest) -> Response:
        """The file, packed where the browser takes that, or 304 where it has this very one."""
        headers = {**SAFETY, "etag": self.tag, "cache-control": "no-cache", "vary": "accept-encoding"}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self.packed, headers={**headers, "content-encoding": "gzip"}, media_type=self.kind)
        return Response(self.body, headers=headers, media_type=self.kind)


def read_files() -> dict[str, StaticFile]:
    """Every file of the page by its path within the folder. Nothing else can be asked for."""
    paths = (path for path in sorted(FOLDER.rglob("*")) if path.suffix in TYPES and path.name != LOGIN)
    return {path.relative_to(FOLDER).as_posix(): _read(path) for path in paths}


def login_page() -> bytes:
    """The page that asks for an admin's key: one file with its style and script in it, since nothing else is served without a key.

    Its own policy names both by their hashes.
    """
    html = (FOLDER / LOGIN).read_text()
    hashes = {part: _hash(_inside(html, part)) for part in ("script", "style")}
    policy = (
        f"default-src 'none'; script-src '{hashes['script']}'; style-src '{hashes['style']}'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'"
    )
    return html.replace("{policy}", policy).encode()


def _inside(html: str, element: str) -> str:
    found = re.search(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
    return found[1] if found else ""


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _read(path: Path) -> StaticFile:
    body = path.read_bytes()
    tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    return StaticFile(TYPES[path.suffix], body, gzip.compress(body, mtime=0), tag)
