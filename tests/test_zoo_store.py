"""Weights on disk: what goes in comes out, and whatever is damaged, truncated, foreign or unknown is refused."""

from __future__ import annotations

import hashlib
import json
import struct

import pytest
import torch
from torch import nn

from lecture_lib.errors import DamagedFileError, NonFiniteError, UnknownNameError
from lecture_lib.zoo import store

METADATA = {"recipe": {"name": "net", "steps": 3}, "seed": 1, "metrics": {"judge": 0.99}}


@pytest.fixture
def folder(tmp_path):
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    store.write("net", net.state_dict(), METADATA, tmp_path)
    store.write("other", nn.Linear(1, 1).state_dict(), {}, tmp_path)
    return tmp_path


def test_round_trip(folder):
    state, metadata = store.read("net", folder)
    assert metadata == METADATA
    assert state["0.weight"].dtype == torch.float32 and state["1.num_batches_tracked"].dtype == torch.int64
    net = store.fill(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), "net", folder)
    assert torch.equal(net[0].weight, net[0].weight.half().float())  # stored as float16
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    assert sorted(listed) == ["net", "other"]
    data = (folder / "net.safetensors").read_bytes()
    assert listed["net"] == {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def test_readable_by_plain_safetensors(folder):
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(folder / "net.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["recipe"]) == METADATA["recipe"]
        assert set(file.keys()) >= {"0.weight", "0.bias"}


def tampered(data: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "truncated": data[:-1],
        "one bit": data[:-3] + bytes([data[-3] ^ 4]) + data[-2:],
        "longer": data + b"\0",
        "a web page": b"<html>404</html>",
    }


@pytest.mark.parametrize("kind", tampered(bytes(10)))
def test_altered_files_are_refused(folder, kind):
    path = folder / "net.safetensors"
    path.write_bytes(tampered(path.read_bytes())[kind])
    with pytest.raises(DamagedFileError, match=r"net\.safetensors"):
        store.read("net", folder)
    assert store.read("other", folder)[0]["weight"].shape == (1, 1)  # the others are not touched


def enter(folder, name, data):
    """Put bytes into the zoo together with their right sum, as someone would who means well."""
    (folder / f"{name}.safetensors").write_bytes(data)
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path.write_text(json.dumps(content))


def test_foreign_files_are_refused_even_with_the_right_sum(folder):
    from safetensors.torch import save

    enter(folder, "net", save({"0.weight": torch.zeros(2, 3)}))
    with pytest.raises(DamagedFileError, match="foreign"):
        store.read("net", folder)
    enter(folder, "net", (folder / "other.safetensors").read_bytes())  # ours, but under another name
    with pytest.raises(DamagedFileError, match="foreign"):
        store.read("net", folder)
    enter(folder, "net", struct.pack("<Q", 1 << 40) + b"{}")  # a header that claims a terabyte
    with pytest.raises(DamagedFileError, match="no safetensors"):
        store.read("net", folder)


def test_missing_and_misfitting(folder):
    with pytest.raises(DamagedFileError, match="course train nothing"):
        store.read("nothing", folder)
    (folder / "net.safetensors").unlink()
    with pytest.raises(DamagedFileError, match="no weights"):
        store.read("net", folder)
    with pytest.raises(DamagedFileError, match="architecture"):
        store.fill(nn.Linear(2, 2), "other", folder)


ENTRIES = [json.dumps({"format": store.FORMAT, "files": files}) for files in ([], {"net": 3}, {"net": {"bytes": 1}})]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other", "files": {}}', "\x00", *ENTRIES])
def test_a_broken_manifest_is_named(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DamagedFileError, match="manifest"):
        store.read("net", folder)


@pytest.mark.parametrize("value", [1e5, torch.nan, -torch.inf])
def test_weights_that_half_precision_cannot_hold_are_refused_before_anything_is_written(folder, value):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(NonFiniteError, match=r"net's 0\.bias"):
        store.write("net", {"0.bias": torch.tensor([1.0, value])}, {}, folder)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    store.write("net", {"0.bias": torch.tensor([65504.0]), "count": torch.tensor(3)}, {}, folder)


def test_nothing_is_written_beside_a_broken_manifest(folder):
    (folder / "manifest.json").write_text("{")
    before = (folder / "net.safetensors").read_bytes()
    with pytest.raises(DamagedFileError, match="manifest"):
        store.write("net", nn.Linear(1, 1).state_dict(), {}, folder)
    assert (folder / "net.safetensors").read_bytes() == before


def test_unknown_names():
    from lecture_lib import zoo

    for action in (zoo.recipe, zoo.load, lambda name: zoo.train(name, "/nowhere"), lambda n: next(zoo.evaluate([n]))):
        with pytest.raises(UnknownNameError, match="digits-dit"):
            action("digits-vit")
