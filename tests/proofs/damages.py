"""Fifty ways in which an artefact can be bad. Each takes the folder of a good one and spoils it.

`SEALED` damages are made before the manifest: whoever made the artefact meant it so, and its SHA-256 are right. The
others happened to it later, on a disk or on the way.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from serving.choice import MANIFEST
from serving.registry import MOST_BYTES

Spoil = Callable[[Path], object]
BOOSTER, NETWORK, SCORER, ROWS = "booster.txt", "network.safetensors", "scorer.json", "rows.json"
FILES = ("calibration.json", "question.json", ROWS, SCORER)


@dataclass(frozen=True)
class Damage:
    """family: of the good artefact. sealed: its manifest is made again afterwards."""

    name: str
    family: str
    spoil: Spoil
    sealed: bool = False

    def __str__(self) -> str:
        return f"{self.family} {self.name}{' sealed' if self.sealed else ''}"


def seal(folder: Path) -> None:
    """Make the manifest again: whatever the files say now is what their maker meant."""
    files = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    (folder / MANIFEST).write_text(json.dumps({"files": files}))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cut(file: str, share: float) -> Spoil:
    """Only the first part of a file is left."""

    def spoil(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(len(content) * share)])

    return spoil


def flip(file: str, share: float) -> Spoil:
    """One bit of a file is another."""

    def spoil(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        content[int(len(content) * share)] ^= 4
        (folder / file).write_bytes(content)

    return spoil


def gone(file: str) -> Spoil:
    return lambda folder: (folder / file).unlink()


def write(file: str, content: bytes) -> Spoil:
    return lambda folder: (folder / file).write_bytes(content)


def edit(file: str, change: Callable[[dict[str, Any]], object]) -> Spoil:
    """`change` a JSON document in place."""

    def spoil(folder: Path) -> None:
        document = json.loads((folder / file).read_text())
        change(document)
        (folder / file).write_text(json.dumps(document))

    return spoil


def numbers(key: str, to: str) -> Spoil:
    """All numbers of a booster's lines that begin with `key` become `to`, filled up to their old length.

    LightGBM goes by the length of its trees: one byte more and it is a truncated file.
    """

    def spoil(folder: Path) -> None:
        text = (folder / BOOSTER).read_text()
        pattern = re.compile(rf"(?<={key}=).*")
        filled = pattern.sub(
            lambda line: re.sub(r"\S+", lambda n: to.rjust(len(n[0]), "0")[-len(n[0]) :], line[0]), text
        )
        (folder / BOOSTER).write_text(filled)

    return spoil


def nan_leaves(folder: Path) -> None:
    text = (folder / BOOSTER).read_text()
    spoilt = re.sub(r"(?<=leaf_value=)\S+", lambda number: "nan".ljust(len(number[0]), " "), text)
    (folder / BOOSTER).write_text(spoilt)


def weights(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        arrays = load_file(folder / NETWORK)
        change(arrays)
        save_file(arrays, folder / NETWORK)

    return spoil


def swap(names: str) -> Spoil:
    """The first two of these columns change places."""

    def change(document: dict[str, Any]) -> None:
        document[names][:2] = document[names][1::-1]

    return edit(ROWS, change)


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def sparse(folder: Path) -> None:
    with (folder / SCORER).open("r+b") as file:
        file.truncate(MOST_BYTES + 1)


def link(folder: Path) -> None:
    (folder / SCORER).unlink()
    (folder / SCORER).symlink_to("/dev/zero")


def pipe(folder: Path) -> None:
    (folder / SCORER).unlink()
    os.mkfifo(folder / SCORER)


def afterwards() -> Iterator[Damage]:
    """What happens to an artefact after it was made."""
    for family, file in (("lightgbm", BOOSTER), ("torch", NETWORK), *(("prior", file) for file in FILES)):
        yield Damage(f"cut {file}", family, cut(file, 0.6))
        yield Damage(f"flipped {file}", family, flip(file, 0.5))
        yield Damage(f"missing {file}", family, gone(file))
    yield Damage("missing manifest", "prior", gone(MANIFEST))
    yield Damage("cut manifest", "prior", cut(MANIFEST, 0.5))
    yield Damage("manifest of another kind", "prior", write(MANIFEST, b'["files"]'))
    yield Damage("manifest that leads outside", "prior", edit(MANIFEST, lambda m: m["files"].update({"../x": "0"})))
    yield Damage("extra file", "prior", write("more.pkl", b"cos\nsystem\n(S'touch /tmp/pwned'\ntR."))
    yield Damage("empty folder", "prior", empty)
    yield Damage("no folder", "prior", shutil.rmtree)
    yield Damage("huge file", "prior", sparse)
    yield Damage("endless device", "prior", link)
    yield Damage("pipe that nobody fills", "prior", pipe)


def before() -> Iterator[Damage]:
    """What an artefact is made with: its SHA-256 are right."""
    nan, deep = float("nan"), b"[" * 1_000_000
    sealed: list[tuple[str, str, Spoil]] = [
        ("lightgbm", "trees that stop short", cut(BOOSTER, 0.5)),
        ("lightgbm", "half a header", cut(BOOSTER, 0.01)),
        ("lightgbm", "no trees at all", write(BOOSTER, b"")),
        ("lightgbm", "not text", write(BOOSTER, bytes(range(256)) * 40)),
        ("lightgbm", "leaves that are no numbers", nan_leaves),
        ("lightgbm", "trees that go in circles", numbers("_child", "0")),
        ("lightgbm", "features that do not exist", numbers("split_feature", "99999")),
        ("lightgbm", "children that do not exist", numbers("_child", "9")),
        ("lightgbm", "more leaves than there are", numbers("num_leaves", "9")),
        ("torch", "weights that are no numbers", weights(lambda w: w["linear.weight"].fill(np.nan))),
        ("torch", "a layer less", weights(lambda w: w.pop("linear.bias"))),
        ("torch", "another shape", weights(lambda w: w.update({"linear.bias": np.zeros(999, np.float32)}))),
        ("torch", "a header without end", write(NETWORK, b"\xff" * 64)),
        ("torch", "more memory than there is", edit(SCORER, lambda s: s["config"].update(hidden=10**11))),
        ("prior", "a prior that is no number", edit(SCORER, lambda s: s["prior"].__setitem__(0, nan))),
        ("prior", "a prior too short", edit(SCORER, lambda s: s["prior"].pop())),
        ("prior", "an unknown family", edit(SCORER, lambda s: s.update(family="oracle"))),
        ("lightgbm", "positions that do not exist", edit(SCORER, lambda s: s["layout"].update(positions=[99] * 9))),
        ("prior", "JSON without bottom", write(SCORER, deep)),
        ("prior", "another question", edit("question.json", lambda q: q.update(model="channel-choice"))),
        ("prior", "other products", edit("question.json", lambda q: q["candidates"].append("yacht"))),
        ("prior", "swapped columns", swap("customer_names")),
        ("lightgbm", "swapped product columns", swap("product_names")),
        ("prior", "other channels", edit(ROWS, lambda r: r["channels"].pop())),
        ("prior", "an unknown calibration", edit("calibration.json", lambda c: c.update(kind="magic", method="magic"))),
        ("prior", "a page of the web", write(ROWS, b"<!DOCTYPE html><title>404</title>")),
    ]
    for family, name, spoil in sealed:
        yield Damage(name, family, spoil, sealed=True)


DAMAGES = (*afterwards(), *before())
