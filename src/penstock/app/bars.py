"""Progress bars on stderr: one per stage, shown only when it takes long enough to wonder."""

from __future__ import annotations

from types import TracebackType

from tqdm import tqdm

from penstock.engine.messages import Loading

PATIENCE_S = 0.5
COUNTED = ("quantizing", "perplexity")  # stages that are not in bytes


class StageBars:
    """Call it with a stage, how much of it is done and how much there is. A context manager, so that no bar outlives the work."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._stage: str | None = None
        self._bar: tqdm[None] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._stage != stage:
            self._close()
            self._stage = stage
            in_bytes = stage not in COUNTED
            self._bar = tqdm(
                desc=stage,
                total=total,
                unit="B" if in_bytes else "",
                unit_scale=in_bytes,
                unit_divisor=1024,
                delay=PATIENCE_S,
                leave=False,
                disable=not self._enabled,
            )
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def __enter__(self) -> StageBars:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class LoadingBars:
    """The same for models that load: call it with each `Loading`."""

    def __init__(self, *, enabled: bool) -> None:
        self._bars = StageBars(enabled=enabled)

    def __call__(self, model: str, loading: Loading) -> None:
        self._bars(f"{model}: {loading.stage}", loading.done, loading.total)

    def __enter__(self) -> LoadingBars:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.__exit__(kind, error, trace)
