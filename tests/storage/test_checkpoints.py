"""What a build keeps of its finished work comes back as it was, or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cpu_fallback import NumpyBackend
from gpu_dcgen.kernels.arguments import Ownership
from gpu_dcgen.preparation.splits import Positives, Windows
from gpu_dcgen.storage.checkpoints import Checkpoints
from gpu_dcgen.tallies import Tallies
from tests.support.strict_array import StrictArray
from tests.support.strict_backend import StrictBackend

KEY = {"inputs": ["a"], "config": {"seed": 1}}


@pytest.fixture(params=[lambda: NumpyBackend(1), lambda: StrictBackend(1)], ids=["cpu", "strict"])
def backend(request) -> Any:
    return request.param()


def opened(folder: Path, backend: Any, key: dict[str, Any] = KEY) -> Checkpoints:
    checkpoints = Checkpoints(folder, backend)
    assert checkpoints.open(key) == []
    return checkpoints


def save_and_load(folder: Path, backend: Any, value: Any) -> Any:
    """The value as another process finds it."""
    first = opened(folder, backend)
    first.save("value", value)
    first.flush()
    first.close(save_pending=True)
    return opened(folder, backend).load("value")


def same(one: Any, other: Any, backend: Any) -> bool:
    if isinstance(one, (np.ndarray, StrictArray)):
        if type(one) is not type(other):
            return False
        one, other = (
            array.host if isinstance(array, StrictArray) else array for array in (one, other)
        )
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    if is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, f.name), getattr(other, f.name), backend) for f in fields(one)
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(
            same(one[name], other[name], backend) for name in one
        )
    if isinstance(one, (list, tuple)):
        return (
            type(one) is type(other)
            and len(one) == len(other)
            and all(same(a, b, backend) for a, b in zip(one, other, strict=True))
        )
    if isinstance(one, pa.Array):
        return one.type == other.type and one.equals(other)
    return type(one) is type(other) and one == other


def test_a_value_comes_back_as_it_was(backend, tmp_path):
    xp = backend.xp
    value = {
        "numbers": [1, -(2**63), 2**70, 0.1, float("inf"), True, None],
        "texts": (
            "größe",
            "\ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
            "",
        ),
        3: {"by": "a number"},
        "arrays": [
            xp.arange(7, dtype=xp.int64),
            xp.zeros((3, 5), dtype=xp.float32) + 0.5,
            xp.zeros(0, dtype=xp.int8),
            xp.ones(11, dtype=bool),
        ],
        "host": np.array([0.25, np.nan]),
        "strings": pa.array(["a", None, "ö" * 100]),
        "no strings": pa.array([], pa.string()),
        "windows": Windows(1, 2, 3, 4),
        "named": Ownership(*(xp.arange(n, dtype=xp.int64) for n in (3, 2, 2))),
        "tallies": Tallies(
            {"train": {"weeks": np.arange(3)}},
            {("train", "items", 9): [np.arange(2, dtype=np.int32)]},
        ),
        "positives": Positives(
            "train", xp.arange(3, dtype=xp.int64), xp.zeros(3, dtype=xp.int32), 1, 2
        ),
    }
    assert same(save_and_load(tmp_path / "kept", backend, value), value, backend)


def test_an_array_keeps_its_order_and_can_be_written_to(tmp_path):
    """Writing goes to memory alone: the kernels are compiled for arrays that can be written to."""
    backend = NumpyBackend(1)
    restored = save_and_load(tmp_path, backend, np.asfortranarray(np.arange(12).reshape(3, 4)))
    assert restored.flags.f_contiguous
    assert restored.flags.writeable
    restored[:] = 0
    assert opened(tmp_path, backend).load("value").tolist() == np.arange(12).reshape(3, 4).tolist()


def test_another_key_forgets_all_and_says_where_it_differs(tmp_path):
    backend = NumpyBackend(1)
    assert save_and_load(tmp_path, backend, 1) == 1
    other = Checkpoints(tmp_path, backend)
    assert other.open({"inputs": ["b"], "config": {"seed": 1}}) == ["inputs"]
    assert other.load("value") is None
    assert [file.name for file in tmp_path.iterdir()] == ["key.json"]


@pytest.mark.parametrize("damage", ["a bit", "the end", "no end of the index", "no data"])
def test_what_is_damaged_is_not_there(damage, tmp_path):
    backend = NumpyBackend(1)
    save_and_load(tmp_path, backend, np.arange(100))
    data, index = tmp_path / "value.bin", tmp_path / "value.json"
    if damage == "a bit":
        content = bytearray(data.read_bytes())
        content[50] ^= 16
        data.write_bytes(content)
    elif damage == "the end":
        data.write_bytes(data.read_bytes()[:-1])
    elif damage == "no end of the index":
        index.write_text(index.read_text()[:-9])
    else:
        data.unlink()
    assert opened(tmp_path, backend).load("value") is None


def test_what_was_being_written_is_not_there(tmp_path):
    backend = NumpyBackend(1)
    first = opened(tmp_path, backend)
    first.save("value", np.arange(5))
    first.flush()
    (tmp_path / "value.json").rename(tmp_path / "value.new")
    assert opened(tmp_path, backend).load("value") is None


@dataclass(frozen=True)
class Foreign:
    number: int


@pytest.mark.parametrize(
    "value", [Foreign(1), object(), {1, 2}], ids=lambda value: type(value).__name__
)
def test_what_is_not_known_is_not_kept(value, tmp_path):
    checkpoints = opened(tmp_path, NumpyBackend(1))
    with pytest.raises(TypeError, match="a checkpoint cannot hold"):
        checkpoints.save("value", value)


@pytest.mark.parametrize(
    "kind",
    [["os", "system"], ["gpu_dcgen.preparation.splits", "Any"], ["gpu_dcgen.errors", "InputError"]],
)
def test_no_file_can_name_what_is_to_be_called(kind, tmp_path):
    backend = NumpyBackend(1)
    save_and_load(tmp_path, backend, Windows(1, 2, 3, 4))
    index = json.loads((tmp_path / "value.json").read_text())
    index["value"]["of"] = kind
    index["sha256"] = hashlib.sha256(
        (tmp_path / "value.bin").read_bytes() + json.dumps(index["value"]).encode()
    ).hexdigest()
    (tmp_path / "value.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="a checkpoint names"):
        opened(tmp_path, backend).load("value")


def test_a_disk_that_is_full_is_told(tmp_path):
    checkpoints = opened(tmp_path, NumpyBackend(1))
    (tmp_path / "value.bin").mkdir()  # as good as a disk that takes no more
    checkpoints.save("value", np.arange(5))
    with pytest.raises(OSError):
        checkpoints.flush()
