"""The record of a decision as few bytes: what the ledger writes, and back to the JSON of `Decision.record`.

Hundreds of candidates are much alike. Their numbers stand column by column as float64, exact to the last bit, where
equal ones follow each other; everything else is JSON. Both are compressed together by Zstandard, which takes a third of
the time of deflate at its fastest.

    FORM · length of what follows when expanded (4 bytes) · compressed:
        length of the JSON (4 bytes) · JSON · float64 [2 + F, C] (values, propensities, F factors)

Bytes are little-endian, C candidates in order; factors stand for the candidates alone that have any. Records of earlier
versions are deflated JSON, which begins with another byte; they are read as they always were, and a decision that does
not fit this form is still written so.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from features.schema import Float64
from serving.candidates import Draft
from serving.decision import Action, Decision
from serving.slate import Slate
from serving.value import FACTORS

FORM = b"\x01"
"""The first byte. Deflated data of zlib begins with 0x78."""
_LENGTH = 4
_FLOAT64 = np.dtype("<f8")
_ONLY_FLOATS = frozenset({float})


def packed(decision: Decision, recorded_at: datetime) -> bytes:
    """The record of a decision, in few bytes."""
    columns = _columns(decision)
    if columns is None:
        return zlib.compress(orjson.dumps({**decision.record(), "recorded_at": recorded_at}), 1)
    names, numbers = columns
    rest = orjson.dumps({**decision.record(candidates=False), "recorded_at": recorded_at, "candidates": names})
    plain = _sized(len(rest)) + rest + numbers
    compressed: bytes = pa.compress(plain, codec="zstd", asbytes=True)
    return FORM + _sized(len(plain)) + compressed


def unpacked(record: bytes) -> bytes:
    """The JSON of a record as it was before it was packed."""
    if not record.startswith(FORM):
        return zlib.decompress(record)
    start = len(FORM) + _LENGTH
    size = int.from_bytes(record[len(FORM) : start], "little")
    plain = pa.decompress(record[start:], decompressed_size=size, codec="zstd", asbytes=True)
    end = _LENGTH + int.from_bytes(plain[:_LENGTH], "little")
    document = orjson.loads(plain[_LENGTH:end])
    document["candidates"] = _candidates(document["candidates"], plain[end:])
    return orjson.dumps(document)


def _columns(decision: Decision) -> tuple[dict[str, Any], bytes] | None:
    """The candidates' names as JSON-ready columns, and their numbers; None where they do not fit into columns."""
    held = decision.candidates
    if isinstance(held, Slate):
        numbers = np.concatenate([held.values, decision.propensities, *(vars(held.factors)[kind] for kind in FACTORS)])
        return _names([*held.offers.actions.tolist(), None], FACTORS, [len(held.offers)]), _written(numbers)
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
    return _names([candidate.action for candidate in held], kinds, without), _written(np.array(flat))


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


def _candidates(names: Mapping[str, Any], numbers: bytes) -> list[dict[str, Any]]:
    """The candidates of a record, as `Decision.record` writes them."""
    kinds, without = names["factors"], set(names["without"])
    count = len(names["channel"])
    flat = np.frombuffer(numbers, _FLOAT64).tolist()
    values, propensities, given = flat[:count], flat[count : 2 * count], flat[2 * count :]
    each = count - len(without)
    rows = iter(zip(*(given[start * each : (start + 1) * each] for start in range(len(kinds))), strict=True))
    return [
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
