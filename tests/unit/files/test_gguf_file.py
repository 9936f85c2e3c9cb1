"""The GGUF container: what it holds, and that no file, however broken or hostile, does worse than a LoadError."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.core.errors import LoadError
from penstock.files.gguf import GGUFFile

HUGE = 2**63


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def info(name: str, dims: tuple[int, ...], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def whole(pairs: list[bytes], infos: list[bytes], data: bytes = b"", *, alignment: int = 32, version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(infos), len(pairs)) + b"".join(pairs) + b"".join(infos)
    return head + b"\0" * (-len(head) % alignment) + data


STRINGS = struct.pack("<IQ", 8, 2) + text("a") + text("ü")
PAIRS = [
    pair("general.architecture", 8, text("llama")),
    pair("count", 4, struct.pack("<I", 7)),
    pair("negative", 11, struct.pack("<q", -7)),
    pair("share", 6, struct.pack("<f", 0.5)),
    pair("yes", 7, b"\1"),
    pair("words", 9, STRINGS),
    pair("numbers", 9, struct.pack("<IQ3h", 3, 3, 1, -2, 3)),
    pair("nested", 9, struct.pack("<IQ", 9, 2) + STRINGS + struct.pack("<IQ", 0, 0)),
]
GOOD = whole(PAIRS, [info("a", (3, 2), 0, 0), info("b", (32, 2), 8, 32)], bytes(range(32)) + bytes(68))


def opened(folder: Path, content: bytes) -> GGUFFile:
    path = folder / "m.gguf"
    path.write_bytes(content)
    return GGUFFile(path)


def test_metadata_of_every_kind(tmp_path: Path) -> None:
    assert dict(opened(tmp_path, GOOD).metadata) == {
        "general.architecture": "llama", "count": 7, "negative": -7, "share": 0.5, "yes": True,
        "words": ["a", "ü"], "numbers": [1, -2, 3], "nested": [["a", "ü"], []],
    }  # fmt: skip


def test_tensors_lie_outermost_dimension_first_behind_the_padding(tmp_path: Path) -> None:
    file = opened(tmp_path, GOOD)
    assert {name: (t.shape, t.type.name, t.num_bytes) for name, t in file.tensors.items()} == {
        "a": ((2, 3), "F32", 24),
        "b": ((2, 32), "Q8_0", 68),
    }
    assert bytes(file.data(file.tensors["a"])) == bytes(range(24))


@pytest.mark.parametrize("alignment", [1, 8, 64])
def test_the_alignment_that_the_file_names_is_used(tmp_path: Path, alignment: int) -> None:
    pairs = [pair("general.alignment", 4, struct.pack("<I", alignment))]
    file = opened(tmp_path, whole(pairs, [info("a", (2,), 0, 0)], b"12345678", alignment=alignment))
    assert bytes(file.data(file.tensors["a"])) == b"12345678"


def test_version_2_is_read_too(tmp_path: Path) -> None:
    assert opened(tmp_path, whole(PAIRS[:1], [], version=2)).metadata["general.architecture"] == "llama"


@pytest.mark.parametrize("vocabulary", ["llama-spm", "gpt-2", "phi-3", "deepseek-coder"])
def test_real_files_open(shared_data: Path, vocabulary: str) -> None:
    metadata = GGUFFile(shared_data / f"tokenizers/ggml_vocab/ggml-vocab-{vocabulary}.gguf").metadata
    words = metadata["tokenizer.ggml.tokens"]
    assert isinstance(words, list)
    assert len(words) > 30_000


BROKEN = {
    "empty": (b"", "cannot be read"),
    "another format": (b"PK\3\4" + GOOD[4:], "does not begin with GGUF"),
    "version 1": (whole([], [], version=1), "version 1"),
    "big-endian": (whole([], [], version=3 << 24), "version 50331648"),
    "only a header": (GOOD[:10], "wanted at byte"),
    "a key as long as the universe": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, HUGE), "wanted at byte"),
    "endless metadata": (b"GGUF" + struct.pack("<IQQ", 3, 0, HUGE), "wanted at byte"),
    "endless tensors": (b"GGUF" + struct.pack("<IQQ", 3, HUGE, 0), "wanted at byte"),
    "endless numbers": (whole([pair("k", 9, struct.pack("<IQ", 12, HUGE))], []), "wanted at byte"),
    "endless strings": (whole([pair("k", 9, struct.pack("<IQ", 8, HUGE))], []), "wanted at byte"),
    "a type from the future": (whole([pair("k", 99, b"")], []), "unknown type 99"),
    "arrays in arrays in arrays": (whole([pair("k", 9, struct.pack("<IQ", 9, 1) * 1000)], []), "nested"),
    "a key twice": (whole(PAIRS[:1] * 2, []), "occurs twice"),
    "a tensor twice": (whole([], [info("a", (1,), 0, 0)] * 2, bytes(8)), "occurs twice"),
    "no dimensions": (whole([], [info("a", (), 0, 0)], bytes(8)), "0 dimensions"),
    "endless dimensions": (whole([], [text("a") + struct.pack("<I", 2**31)], bytes(8)), "2147483648 dimensions"),
    "alignment of zero": (whole([pair("general.alignment", 4, bytes(4))], []), "general.alignment is 0"),
    "alignment of text": (whole([pair("general.alignment", 8, text("x"))], []), "general.alignment is 'x'"),
}
BROKEN_TENSORS = {
    "beyond the end": (whole([], [info("a", (3,), 0, 0)], bytes(8)), "the file is cut off"),
    "an offset beyond the end": (whole([], [info("a", (1,), 0, HUGE)], bytes(8)), "the file is cut off"),
    "an endless shape": (whole([], [info("a", (HUGE, HUGE), 0, 0)], bytes(8)), "the file is cut off"),
    "half a block": (whole([], [info("a", (33,), 8, 0)], bytes(99)), "has blocks of 32"),
    "a format that is not read": (
        whole([], [info("a", (256,), 11, 0)], bytes(110)),
        "stored as Q3_K.*F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, BF16",
    ),
    "a format from the future": (whole([], [info("a", (256,), 77, 0)], bytes(110)), "stored as unknown type 77"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused(tmp_path: Path, case: str) -> None:
    content, message = BROKEN[case]
    with pytest.raises(LoadError, match=message):
        opened(tmp_path, content)


@pytest.mark.parametrize("case", BROKEN_TENSORS)
def test_a_broken_tensor_is_refused_when_tensors_are_looked_at(tmp_path: Path, case: str) -> None:
    content, message = BROKEN_TENSORS[case]
    file = opened(tmp_path, content)
    with pytest.raises(LoadError, match=message):
        _ = file.tensors


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read"):
        GGUFFile(tmp_path / "none.gguf")


def look(folder: Path, content: bytes) -> None:
    """Open and read everything; a LoadError is as good as an answer."""
    try:
        file = opened(folder, content)
        for tensor in file.tensors.values():
            bytes(file.data(tensor))
    except LoadError:
        pass


@settings(max_examples=300, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_anywhere_never_crashes(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        patch = data.draw(st.one_of(st.binary(min_size=1, max_size=9), st.integers(0, 2**64 - 1).map(lambda n: struct.pack("<Q", n))))
        content[at : at + len(patch)] = patch
    look(tmp_path, bytes(content[: data.draw(st.integers(1, len(content)))]))


@settings(max_examples=200, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400))
def test_noise_behind_the_magic_never_crashes(tmp_path: Path, noise: bytes) -> None:
    look(tmp_path, b"GGUF" + struct.pack("<IQQ", 3, 3, 3) + noise)


def test_hostile_counts_cost_neither_memory_nor_time(tmp_path: Path) -> None:
    started = time.monotonic()
    tracemalloc.start()
    for content, _ in (*BROKEN.values(), *BROKEN_TENSORS.values()):
        look(tmp_path, content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    assert time.monotonic() - started < 5
