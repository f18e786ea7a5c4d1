"""The record of a decision as few bytes: what the ledger writes, and back to the JSON of `Decision.record`.

Hundreds of candidates are much alike. Their numbers stand column by column as float64, exact to the last bit, where
equal ones follow each other, and those of the features behind them; everything else is JSON. What is the same in many
records, the names of candidates and most of what was removed, is JSON already when a record is made. All of it is
compressed together by Zstandard, which takes a third of the time of deflate at its fastest.

    FORM · length of what follows when expanded (4 bytes) · compressed:
        length of the JSON (4 bytes) · JSON · float64 [2 + F, C] (values, propensities, F factors) · float64 [N]

Bytes are little-endian, C candidates in order; factors stand for the candidates alone that have any; the N numbers are
those of the views in their order. Records of earlier versions have them in the JSON, and begin with another byte, or
are deflated JSON altogether; all are read as they always were, and a decision that does not fit this form is still
written deflated.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from features.schema import Float64
from serving.candidates import Draft
from serving.decision import NO_CONTACT, Action, Decision, Removed
from serving.recorded import filled_in, outline
from serving.removals import Removals
from serving.same import Same
from serving.slate import Slate
from serving.value import FACTORS

FORM = b"\x02"
"""The first byte. Deflated data of zlib begins with 0x78."""
BEFORE = b"\x01"
"""That of records whose features stand in the JSON."""
_LENGTH = 4
_FLOAT64 = np.dtype("<f8")
_ONLY_FLOATS = frozenset({float})
_NOTHING = struct.pack("<d", NO_CONTACT.value)
_ZSTD = pa.Codec("zstd")
_KEPT = 256
"""Sets of candidates whose names are kept as JSON."""


def packed(decision: Decision, recorded_at: datetime) -> bytes:
    """The record of a decision, in few bytes."""
    columns = _columns(decision)
    if columns is None:
        return zlib.compress(orjson.dumps({**decision.record(), "recorded_at": recorded_at}), 1)
    names, numbers = columns
    features, known = (None, []) if decision.features is None else outline(decision.features)
    document = decision.record({"features": features, "candidates": names, "removed": _listed(decision.removed)})
    document["recorded_at"] = recorded_at
    rest = orjson.dumps(document)
    plain = b"".join((_sized(len(rest)), rest, *numbers, *(_written(one) for one in known)))
    return b"".join((FORM, _sized(len(plain)), _ZSTD.compress(plain, asbytes=True)))


def unpacked(record: bytes) -> bytes:
    """The JSON of a record as it was before it was packed."""
    form = record[: len(FORM)]
    if form not in (FORM, BEFORE):
        return zlib.decompress(record)
    start = len(FORM) + _LENGTH
    size = int.from_bytes(record[len(FORM) : start], "little")
    plain = _ZSTD.decompress(record[start:], decompressed_size=size, asbytes=True)
    end = _LENGTH + int.from_bytes(plain[:_LENGTH], "little")
    document = orjson.loads(plain[_LENGTH:end])
    document["candidates"], numbers = _candidates(document["candidates"], plain[end:])
    if form == FORM and document["features"] is not None:
        document["features"] = filled_in(document["features"], numbers)
    return orjson.dumps(document)


def _columns(decision: Decision) -> tuple[Any, Sequence[bytes]] | None:
    """The candidates' names as JSON-ready columns, and their numbers; None where they do not fit into columns."""
    held = decision.candidates
    if isinstance(held, Slate):
        made_of = vars(held.factors)
        numbers = [
            *(_written(held.worth), _NOTHING),
            struct.pack(f"<{len(held)}d", *decision.propensities),
            *(_written(made_of[kind]) for kind in FACTORS),
        ]
        return orjson.Fragment(_named(Same(held.offers.actions))), numbers
    factors = [candidate.factors for candidate in held]
    given = [one for one in factors if one is not None]
    kinds = tuple(given[0]) if given else ()
    if any(tuple(one) != kinds for one in given):
        return None
    rows = ([one[kind] for one in given] for kind in kinds)
    flat = [candidate.value for candidate in held] + list(chain(decision.propensities, *rows))
    if not _ONLY_FLOATS.issuperset(map(type, flat)):
        return None  # a whole number is written without a point, and would come back with one
    without = [place for place, one in enumerate(factors) if one is None]
    return _names([candidate.action for candidate in held], kinds, without), [_written(np.array(flat))]


@lru_cache(maxsize=_KEPT)
def _named(same: Same[Any]) -> bytes:
    """The names of a slate's candidates as JSON."""
    actions = list(same.run)
    return orjson.dumps(_names([*actions, None], FACTORS, [len(actions)]))


def _listed(removed: Sequence[Removed]) -> Any:
    """What was removed, as a record lists it."""
    if isinstance(removed, Removals):
        return orjson.Fragment(removed.json)
    return [vars(item) for item in removed]


def _names(actions: Sequence[Action | Draft | None], kinds: Sequence[str], without: Sequence[int]) -> dict[str, Any]:
    """What is not a number, as JSON-ready columns; without: places of candidates that have no factors."""
    return {
        "product_id": [action and action.product_id for action in actions],
        "channel": [action and action.channel for action in actions],
        "content_id": [action and action.content_id for action in actions],
        "factors": kinds,
        "without": without,
    }


def _written(numbers: Float64) -> bytes:
    return numbers.astype(_FLOAT64, copy=False).tobytes()


def _sized(length: int) -> bytes:
    return length.to_bytes(_LENGTH, "little")


def _candidates(names: Mapping[str, Any], numbers: bytes) -> tuple[list[dict[str, Any]], bytes]:
    """The candidates of a record, as `Decision.record` writes them, and the numbers that are not theirs."""
    kinds, without = names["factors"], set(names["without"])
    count = len(names["channel"])
    each = count - len(without)
    end = (2 * count + len(kinds) * each) * _FLOAT64.itemsize
    flat = np.frombuffer(numbers[:end], _FLOAT64).tolist()
    values, propensities, given = flat[:count], flat[count : 2 * count], flat[2 * count :]
    rows = iter(zip(*(given[start * each : (start + 1) * each] for start in range(len(kinds))), strict=True))
    candidates = [
        {
            "product_id": product,
            "channel": channel,
            "content_id": content,
            "value": value,
            "factors": None if place in without else dict(zip(kinds, next(rows, ()), strict=True)),
            "propensity": propensity,
        }
        for place, (product, channel, content, value, propensity) in enumerate(
            zip(names["product_id"], names["channel"], names["content_id"], values, propensities, strict=True)
        )
    ]
    return candidates, numbers[end:]
