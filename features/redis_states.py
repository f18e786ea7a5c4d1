"""The packed online store on a Redis server: the same packed rows as in the file, for servers on several machines.

A customer's states of all views are one string (`features.redis_scripts`): whatever is asked is one command, hence one
round trip and one moment. The keys of a build have a prefix of their own, so that one is made while another is read.

What a server lost must never look like an unknown customer, whose silence is consent. So no key expires (what a state
is worth is the row builder's business), a server that evicts keys is refused, and every read asks for the marks of the
views that were loaded whole: after a restart without its data, or with old data, there are none, and reading fails.
"""

from __future__ import annotations

import itertools
import json
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from features.errors import ArtefactError, InputError, NotBuilt, StoreUnavailable
from features.packed import PackedStates, Row
from features.packing import check_keys, fingerprint, layout, pack
from features.redis_scripts import DEFINE, DROP, HEAD, WRITE
from features.schema import MARKET_ID, View

if TYPE_CHECKING:
    from redis import Redis

_SECONDS = 2.0
"""A server that says nothing for so long does not answer."""
_KEYS_PER_QUERY = 1_000  # a longer command keeps everybody else waiting
_ROWS_PER_SCRIPT = 250  # about a millisecond of the server, during which no one else is answered
_ROWS_PER_BLOCK = 16_384
_KEYS_PER_SCAN = 1_000


def connect(url: str) -> Redis:
    """A client of the server at `url` (redis://, rediss:// or unix://); nothing is sent yet."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        # One retry, for a connection that the server closed while it was idle.
        client: Redis = Redis.from_url(
            url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS, retry=Retry(NoBackoff(), 1)
        )
    except ValueError:
        # The URL is not shown: it may hold a password.
        raise InputError(
            f"an online store's URL must be like redis://host:6379/0, however this one begins with {url[:8]!r}"
        ) from None
    return client


def define(url: str, prefix: str, views: Iterable[View]) -> None:
    """Register `views` under `prefix`; a view that is there with other columns loses its rows."""
    with _asking(connect(url)) as client:
        _check_server(client)
        for view in views:
            given = (view.name, fingerprint(view), layout(view))
            before = client.eval(DEFINE, 2, f"{prefix}views", f"{prefix}loaded", *given)
            if before:
                _drop(client, prefix, int(before))


def forget(url: str, prefix: str, names: Iterable[str]) -> None:
    """Remove views and all their rows."""
    with _asking(connect(url)) as client:
        there = _views(client, prefix)
        for name in names:
            if name in there:
                client.hdel(f"{prefix}views", name)
                client.setbit(f"{prefix}loaded", there[name]["number"], 0)
                _drop(client, prefix, there[name]["number"])


def remove(url: str, prefix: str) -> None:
    """Remove everything under `prefix`, its marks first: from then on nobody can read it."""
    with _asking(connect(url)) as client:
        if not client.exists(f"{prefix}views"):
            return
        client.delete(f"{prefix}loaded")
        for kind in ("c:", "m:"):
            for keys in _scan(client, f"{prefix}{kind}"):
                client.unlink(*keys)
        client.delete(f"{prefix}views")  # last: what was interrupted is found again


class RedisStates(PackedStates):
    """The states as they are under `prefix` on the server at `url`; any thread may use it.

    Raises NotBuilt where nothing is there, ArtefactError where it is damaged or was written for other columns,
    StoreUnavailable where the server does not answer, InputError where it may lose customers.
    """

    def __init__(self, url: str, prefix: str, views: Sequence[View]) -> None:
        self.views = tuple(views)
        self._prefix = prefix
        self._client = connect(url)
        self._write = self._client.register_script(WRITE)
        with _asking(self._client) as client:
            _check_server(client)
            self._ids = _checked(_views(client, prefix), self.views, prefix)
            marks: Any = client.get(f"{prefix}loaded")
            self._loaded = self._marked(marks)
            self._good_marks: bytes | None = None
            """Marks that were found to hold all of ours; None: look at them."""
        self._known = frozenset(self._ids.values())
        self._market = frozenset(self._ids[view.name] for view in self.views if view.entity == "market")

    @property
    def loaded(self) -> bool:
        """Whether all views were loaded whole when this was opened."""
        return len(self._loaded) == len(self._ids)

    def write(self, view: View, table: pa.Table) -> None:
        """Write the states in `table`; after a failure in between, write them again: the guard keeps what is right."""
        number, market = self._ids[view.name], view.entity == "market"
        check_keys(view, table)  # of all rows, before the first is written
        with _asking(self._client):
            for start in range(0, table.num_rows, _ROWS_PER_BLOCK):
                keys, events, created, numbers, texts = pack(view, table.slice(start, _ROWS_PER_BLOCK))
                words = [text.encode() if text else b"" for text in texts]
                rows = [
                    HEAD.pack(number, len(block), len(word), event, known) + block + word
                    for event, known, block, word in zip(events, created, numbers, words, strict=True)
                ]
                names = [self._market_key(key) if market else self._customer_key(key) for key in keys]
                for first in range(0, len(rows), _ROWS_PER_SCRIPT):
                    part = slice(first, first + _ROWS_PER_SCRIPT)
                    self._write(names[part], rows[part])

    def load(self, view: View, blocks: Iterable[pa.Table]) -> None:
        """Write the states of all blocks, then mark the view as whole."""
        for block in blocks:
            self.write(view, block)
        with _asking(self._client) as client:
            client.setbit(f"{self._prefix}loaded", self._ids[view.name], 1)
        self._loaded |= {self._ids[view.name]}
        self._good_marks = None

    def _rows(self, keys: list[str]) -> Iterator[Row]:
        """All views' rows of `keys` and of the market; up to 1,000 customers at one moment, in one round trip."""
        with _asking(self._client) as client:
            for start in range(0, len(keys) or 1, _KEYS_PER_QUERY):
                asked = keys[start : start + _KEYS_PER_QUERY]
                names = [f"{self._prefix}loaded", self._market_key(MARKET_ID), *map(self._customer_key, asked)]
                answer: Any = client.mget(names)
                marks, market, *customers = answer
                seen = self._good_marks is not None and marks == self._good_marks
                if not seen and not self._loaded <= self._marked(marks):
                    raise ArtefactError(
                        f"the online store must still hold the views that were loaded under {self._prefix!r}, however "
                        "it lost some of them; build the features again, and let Redis keep its data over a restart"
                    )
                self._good_marks = marks
                if market:
                    yield from self._unpacked(MARKET_ID, market)
                for key, found in zip(asked, customers, strict=True):
                    if found:
                        yield from self._unpacked(key, found)

    def _unpacked(self, key: str, found: bytes) -> Iterator[Row]:
        at = 0
        try:
            while at < len(found):
                number, numbers, texts, event_us, _ = HEAD.unpack_from(found, at)
                first = at + HEAD.size
                second = first + numbers
                at = second + texts
                if at > len(found):
                    raise struct.error(f"{at} bytes are announced, {len(found)} are there")
                if number in self._known:
                    yield number, key, event_us, found[first:second], found[second:at].decode() if texts else None
        except (struct.error, UnicodeDecodeError) as error:
            raise ArtefactError(
                f"what the online store holds of {key!r} is damaged ({error}); build the features again"
            ) from error

    def _customer_key(self, customer_id: str) -> str:
        return f"{self._prefix}c:{customer_id}"

    def _market_key(self, market_id: str) -> str:
        return f"{self._prefix}m:{market_id}"

    def _marked(self, marks: bytes | None) -> frozenset[int]:
        """Which of our views are marked as whole; a bitmap as Redis keeps it, the first bit is the highest."""
        marks = marks or b""
        return frozenset(
            number
            for number in self._ids.values()
            if marks[number // 8 : number // 8 + 1] and marks[number // 8] >> 7 - number % 8 & 1
        )


def _views(client: Redis, prefix: str) -> dict[str, dict[str, Any]]:
    """View name → number, fingerprint and layout, as they were defined under `prefix`."""
    held: Any = client.hgetall(f"{prefix}views")
    return {name.decode(): json.loads(entry) for name, entry in held.items() if name}


def _checked(there: dict[str, dict[str, Any]], views: Sequence[View], prefix: str) -> dict[str, int]:
    """View name → its number; refuses views that the store holds otherwise or not at all."""
    if not there:
        raise NotBuilt(
            f"the online store holds nothing under {prefix!r}; build it with `nextbest features build DIR` and this "
            "NEXTBEST_ONLINE_URL"
        )
    for view in views:
        held = there.get(view.name, {})
        if held.get("fingerprint") != fingerprint(view):
            raise ArtefactError(
                f"the online store must hold view {view.name!r} as {layout(view)}, however it holds "
                f"{held.get('layout', 'nothing')}; build the features again with this version"
            )
    return {view.name: int(there[view.name]["number"]) for view in views}


def _check_server(client: Redis) -> None:
    """Refuse a server that would lose customers on its own, or that cannot read several at once."""
    server: Any = client.info()
    policy = server.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        raise InputError(
            "a Redis that holds features must keep every key, consent is among them, however its maxmemory-policy is "
            f"{policy}; set it to noeviction"
        )
    if server.get("cluster_enabled"):
        raise InputError(
            "the online store reads many customers in one command, however this Redis is a cluster, which cannot; use "
            "a single server with replicas"
        )


def _drop(client: Redis, prefix: str, number: int) -> None:
    """Remove the rows of a view from all keys."""
    drop = client.register_script(DROP)
    for kind in ("c:", "m:"):
        for keys in _scan(client, f"{prefix}{kind}"):
            drop(keys, [number])


def _scan(client: Redis, prefix: str) -> Iterator[list[bytes]]:
    """The keys that begin with `prefix`, in lists."""
    pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "*"
    found: Iterator[bytes] = iter(client.scan_iter(match=pattern, count=_KEYS_PER_SCAN))
    while keys := list(itertools.islice(found, _KEYS_PER_SCAN)):
        yield keys


@contextmanager
def _asking(client: Redis) -> Iterator[Redis]:
    """The client; what it raises is told as ours, without the password that its URL may hold."""
    from redis.exceptions import RedisError

    try:
        yield client
    except (RedisError, OSError) as error:
        place = client.connection_pool.connection_kwargs
        where = place.get("path") or f"{place.get('host')}:{place.get('port')}"
        raise StoreUnavailable(
            f"the online store on Redis at {where} must answer, however it does not ({type(error).__name__}: {error}); "
            "look after the server: without it nothing is known of any customer"
        ) from error
