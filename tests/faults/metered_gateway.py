"""A gateway with keys, limits, prices and a ledger in a process of its own.

    python metered_gateway.py FOLDER COUNTERS DATABASE [WHEN_DOWN HOLD_S]

Prints its URL once it is ready. Its model is scripted: each answer is 20 tokens in 5 pieces, and each token costs a millionth of
a dollar.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from penstock.core.config import LimitSettings, PriceSettings, ServerSettings, WhenDown
from penstock.gateway.app import build
from penstock.gateway.auth import Auth
from penstock.gateway.server import serve
from penstock.meter.books import DatabaseLedger
from penstock.meter.database import open_database
from penstock.meter.keys import KeyRing, Keys
from penstock.meter.limits import make_limiter
from penstock.meter.prices import make_pricing
from penstock.pipeline import Pipeline
from penstock.router.fixed import FixedRouter
from penstock.trace.metrics import Metrics
from penstock.upstream import Dispatch, routes_by_model
from penstock.upstream.fake import FakeUpstream, Script

SECRET = b"a secret of the tests, 32 bytes."
PRICES = 'prices = [{ models = ["fake"], prompt = 1, completion = 1 }]'
HOLD_S = "2"  # what a killed gateway had reserved comes free again so soon


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(folder: Path, counters: str, address: str, when_down: WhenDown = "refuse", hold_s: str = HOLD_S) -> None:
    database = open_database(address, folder)
    ring = KeyRing(Keys(database, SECRET), refresh_s=0.2)
    await asyncio.to_thread(ring.start)
    (folder / "prices.toml").write_text(PRICES)
    ledger = DatabaseLedger(database, folder / "spool", sync_s=0.1)
    settings = LimitSettings(
        counters=counters,
        requests_when_down=when_down,
        tokens_when_down=when_down,
        concurrent_when_down=when_down,
        budget_when_down="refuse",
        timeout_s=5,  # a busy machine is no outage
    )
    limiter = make_limiter(settings, folder, float(hold_s), ledger.spent)
    await ledger.start(limiter.settle_left)
    upstreams = {"fake": FakeUpstream(Script(pieces=("word",) * 5, delay_s=0.002))}
    pipeline = Pipeline(
        dispatch=Dispatch(upstreams),
        router=FixedRouter(routes_by_model(upstreams)),
        ledger=ledger,
        admission=limiter,
        pricing=make_pricing(PriceSettings(file=str(folder / "prices.toml")), []),
    )
    server = ServerSettings(port=0, drain_s=5)
    app = build(pipeline, server, Metrics(CollectorRegistry(), ["fake"]), auth=Auth(ring, server))
    await serve(app, server, on_ready=say)
    await pipeline.close()
    ring.close()
    database.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))  # type: ignore[arg-type]
