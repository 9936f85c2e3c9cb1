"""From names to files: what is found, and that what is not found says what to do."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import constants

from penstock.core.errors import LoadError
from penstock.files import BUILTIN, ModelFiles, locate
from penstock.files.locate import builtin_models


def model_folder(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


def pickled() -> bytes:
    """As torch.save wrote them for years: a zip archive with a pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return buffer.getvalue()


def test_the_built_in_model_is_found_by_name() -> None:
    for name, path in BUILTIN.items():
        assert locate(name) == ModelFiles(name, "safetensors", path, builtin=True)


def test_a_folder_of_models_is_listed_by_name_the_default_one_first(tmp_path: Path) -> None:
    for name in ("penstock-midi", "another", "penstock-mini"):
        model_folder(tmp_path / name, "config.json", "model.safetensors")
    model_folder(tmp_path / "static-table", "table.safetensors")  # data that is no model
    (tmp_path / "prices.toml").touch()
    assert list(builtin_models(tmp_path)) == ["penstock-mini", "another", "penstock-midi"]
    assert builtin_models(tmp_path)["another"] == tmp_path / "another"


def test_a_folder_in_hugging_face_layout(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "config.json", "model.safetensors")
    assert locate(str(folder)) == ModelFiles(str(folder), "safetensors", folder)


@pytest.mark.parametrize(("name", "format"), [("m.gguf", "gguf"), ("stories.bin", "llama2c")])
def test_single_files(tmp_path: Path, name: str, format: str) -> None:  # noqa: A002
    (tmp_path / name).write_bytes(b"\x40\0\0\0")
    assert locate(str(tmp_path / name)).format == format


def test_the_home_folder_may_be_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m.gguf").touch()
    assert locate("~/m.gguf").path == tmp_path / "m.gguf"


def test_a_name_nearly_right_gets_the_closest() -> None:
    with pytest.raises(LoadError, match="did you mean 'penstock-mini'"):
        locate("penstok-mini")


@pytest.mark.parametrize("name", ["", "no/such/folder", "./nothing.gguf", "org/model.gguf", "../up", "a\0b", "spaces in/it"])
def test_what_is_no_model_says_what_would_be_one(name: str) -> None:
    with pytest.raises(LoadError, match=r"there is no model|holds no"):
        locate(name)


def test_a_path_that_cannot_be_looked_at_is_a_plain_error() -> None:
    with pytest.raises(LoadError, match="cannot be read"):
        locate("x" * 5000)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth"])
def test_pickled_checkpoints_are_never_loaded(tmp_path: Path, name: str) -> None:
    model_folder(tmp_path, "config.json")
    (tmp_path / name).write_bytes(pickled())
    for asked in (tmp_path, tmp_path / name):
        with pytest.raises(LoadError, match=r"pickled.*never loaded.*safetensors"):
            locate(str(asked))


def test_old_pickles_without_an_archive_are_known_too(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(LoadError, match="never loaded"):
        locate(str(tmp_path / "m.bin"))


def test_a_folder_of_gguf_files_names_one(tmp_path: Path) -> None:
    (tmp_path / "m-q8.gguf").touch()
    with pytest.raises(LoadError, match=r"pass the file itself: .*m-q8\.gguf"):
        locate(str(tmp_path))


def test_weights_without_config_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"no config\.json"):
        locate(str(model_folder(tmp_path, "model.safetensors")))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    with pytest.raises(LoadError, match=r"ends with '\.onnx'"):
        locate(str(tmp_path / "m.onnx"))


def test_json_files_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": [1]}')
    (tmp_path / "broken.json").write_text("[1, 2")
    files = ModelFiles("m", "safetensors", tmp_path)
    assert files.json("config.json") == {"a": [1]}
    assert files.json("absent.json") is None
    with pytest.raises(LoadError, match=r"broken\.json cannot be read"):
        files.json("broken.json")


def cached(cache: Path, repo: str, *names: str) -> Path:
    """A folder in the hub's cache as a finished download leaves it."""
    home = cache / f"models--{repo.replace('/', '--')}"
    model_folder(home / "refs")
    (home / "refs/main").write_text("c" * 40)
    return model_folder(home / "snapshots" / ("c" * 40), *names)


def test_an_id_in_the_cache_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = cached(tmp_path, "org/tiny", "config.json", "model.safetensors")
    assert locate("org/tiny", progress=False) == ModelFiles("org/tiny", "safetensors", folder)


def test_an_id_in_the_cache_without_safetensors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    cached(tmp_path, "org/tiny", "config.json")
    with pytest.raises(LoadError, match="safetensors"):
        locate("org/tiny")


def test_nothing_of_this_loads_torch_and_the_hub_is_loaded_for_ids_only(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    path = str(tmp_path / "m.gguf")
    code = f"import sys; from penstock.files import locate; locate({path!r}); print({{'torch', 'huggingface_hub'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
