"""A server in a process of its own, for signals: `python server_process.py DRAIN_S`. Prints its URL once it is ready.

Its model says a piece each tenth of a second, twenty times.
"""

from __future__ import annotations

import asyncio
import sys

from prometheus_client import CollectorRegistry

from penstock.core.config import ServerSettings
from penstock.gateway.app import build
from penstock.gateway.server import serve
from penstock.pipeline import Pipeline
from penstock.router.fixed import FixedRouter
from penstock.trace.metrics import Metrics
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.fake import FakeUpstream, Script


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main() -> None:
    upstreams = {"fake": FakeUpstream(Script(pieces=("Hello ",) * 20, delay_s=0.1))}
    pipeline = Pipeline(dispatch=Dispatch(upstreams), router=FixedRouter(routes_by_model(upstreams)))
    settings = ServerSettings(port=0, drain_s=float(sys.argv[1]))
    app = build(pipeline, settings, Metrics(CollectorRegistry(), ["fake"]))
    await serve(app, settings, on_ready=say)
    say("closed")


if __name__ == "__main__":
    asyncio.run(main())
