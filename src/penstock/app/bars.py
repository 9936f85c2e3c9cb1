"""Progress bars on stderr while models load: one per stage, shown only when it takes long enough to wonder."""

from __future__ import annotations

from types import TracebackType

from tqdm import tqdm

from penstock.engine.messages import Loading

PATIENCE_S = 0.5


class LoadingBars:
    """Call it with each `Loading`. A context manager, so that no bar outlives the loading."""

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._stage: tuple[str, str] | None = None
        self._bar: tqdm[None] | None = None

    def __call__(self, model: str, loading: Loading) -> None:
        if self._stage != (model, loading.stage):
            self._close()
            self._stage = (model, loading.stage)
            self._bar = tqdm(
                desc=f"{model}: {loading.stage}",
                total=loading.total,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                delay=PATIENCE_S,
                leave=False,
                disable=not self._enabled,
            )
        if self._bar is not None:
            self._bar.update(loading.done - self._bar.n)

    def __enter__(self) -> LoadingBars:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
