"""The least that a gateway in this stack could do: starlette and uvicorn in, aiohttp out, bytes unread.

python benchmarks/passthrough.py PORT UPSTREAM_PORT
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


def app(upstream_port: int) -> Starlette:
    url = f"http://127.0.0.1:{upstream_port}/v1/chat/completions"

    @asynccontextmanager
    async def session(app: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as app.state.session:
            yield

    async def chat(request: Request) -> Response:
        body = await request.body()
        answer = await request.app.state.session.post(url, data=body, headers={"content-type": "application/json"})
        if answer.content_type == "text/event-stream":
            return StreamingResponse(_pieces(answer), media_type="text/event-stream")
        async with answer:
            return Response(await answer.read(), media_type="application/json")

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])], lifespan=session)


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for piece in answer.content.iter_any():
            yield piece


if __name__ == "__main__":
    uvicorn.run(app(int(sys.argv[2])), port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="critical", access_log=False)
