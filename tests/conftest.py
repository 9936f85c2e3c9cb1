"""What all tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from serving import Server, servers

ROOT = Path(__file__).resolve().parent.parent

# Tests run beside each other on few cores; set before anything loads torch, and inherited by engine processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
_HOME = tempfile.TemporaryDirectory(prefix="penstock-tests-")  # what a server keeps: never the user's own
os.environ["PENSTOCK_SERVER__DATA_DIR"] = _HOME.name

# The same examples each time, so that what was green stays green; PENSTOCK_RANDOM=1 looks for new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("PENSTOCK_RANDOM"):
    hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public data beside the repository; the tests that need it skip where it is not."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the data folder ../shared/data beside the repository")
    return folder


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers: `serve("--flag", config="toml text")`. All are killed at the end."""
    with servers(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def serve_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """The same, for servers that all tests of a module share."""
    with servers(tmp_path_factory.mktemp("serve")) as start:
        yield start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items and not _has_cuda():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
