"""What all tests share: the real data sets and a PostgreSQL server, if they are here, and a world of choices."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lightgbm
import numpy as np

# Before Feast: its import makes Prometheus counters files that all apps of a process share.
import prometheus_client.values  # noqa: F401
import pytest

from features.home import Home
from features.schema import Attribute, Bool, Float32, Rows, RowSchema
from serving.calibration import Calibration
from serving.choice import ChoiceModel, Scorer
from serving.question import Block, Link, Question
from serving.scorers import Layout, LightGBMScorer, PriorScorer
from training.examples import Examples

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, which lie beside the repository and are never part of it."""
    if not REAL_DATA.is_dir():
        pytest.skip("the real data sets do not lie beside this checkout (../shared/data)")
    return REAL_DATA


PRODUCTS = ("account", "card", "loan", "fund")
CARD = PRODUCTS.index("card")


@dataclass(frozen=True)
class ChoiceWorld:
    """Customers whose choices have a provable optimum, for everything that learns or scores choices.

    Who has the flag takes the card whenever it can be had. Of the others, `TAKES` take something: of what is available
    besides the card, one product like another. The other customer columns and the candidates' columns are noise, with
    missing values. About every seventh product is held, hence not available.
    """

    question: Question
    examples: Examples

    TAKES = 0.4

    @property
    def flagged(self) -> Bool:
        """bool [n]: customers with the flag for whom the card is available."""
        return (self.examples.rows.customer[:, 0] == 1) & self.examples.available[:, CARD]

    @property
    def plain(self) -> Bool:
        """bool [n]: customers without the flag."""
        return self.examples.rows.customer[:, 0] == 0

    @classmethod
    def make(cls, rows: int, seed: int, link: Link = "joint", outside: bool = True) -> ChoiceWorld:
        schema = RowSchema(
            products=PRODUCTS,
            holdable=(True,) * 4,
            channels=("push", "branch"),
            attributes=(Attribute("flag", "flag"),),
            vocabularies=(),
            time_zone="UTC",
            customer_names=("flag", "age", "balance", "segment: a, b"),
            product_names=("visits", "days_since_visit"),
            channel_names=("touches",),
        )
        draw = np.random.default_rng(seed)
        customer = draw.normal(size=(rows, 4)).astype(np.float32)
        customer[:, 0] = draw.random(rows) < 0.3
        customer[:, 1:][draw.random((rows, 3)) < 0.2] = np.nan
        product = draw.exponential(size=(rows, 4, 2)).astype(np.float32)
        product[draw.random(product.shape) < 0.3] = np.nan
        held = draw.random((rows, 4)) < 0.15
        held[:, 0] = False
        facts = Rows(customer, product, np.zeros((rows, 2, 1), np.float32), held, np.zeros((rows, 2), bool), schema)
        available = np.concatenate([~held, np.full((rows, 1), outside)], axis=1)
        if link == "each":  # one candidate is tried on each customer
            available[:, :-1] = np.arange(4) == draw.integers(4, size=(rows, 1))
        chosen = cls._choose(draw, customer[:, 0] == 1, available)
        question = Question("next-best-product", PRODUCTS, "product", link, outside, 30.0)
        return cls(question, Examples(facts, available, chosen, np.ones(rows, np.float32)))

    @classmethod
    def _choose(cls, draw: np.random.Generator, flag: Bool, available: Bool) -> Float32:
        wanted = available[:, :-1].copy()  # [n, m]
        wanted[:, CARD] = False
        wanted[flag] = False
        wanted |= (flag[:, None] & available[:, :-1]) & (np.arange(len(PRODUCTS)) == CARD)
        wanted |= ~available[:, -1:] & available[:, :-1] & ~wanted.any(axis=1, keepdims=True)
        something = (flag | (draw.random(len(flag)) < cls.TAKES) | ~available[:, -1]) & wanted.any(axis=1)
        lot = np.where(wanted, draw.random(wanted.shape), -1.0).argmax(axis=1)
        option = np.where(something, lot, len(PRODUCTS))
        return np.eye(len(PRODUCTS) + 1, dtype=np.float32)[option]


@pytest.fixture(scope="session")
def choice_world() -> Callable[..., ChoiceWorld]:
    """`choice_world(rows, seed, link, outside)` makes a world of customers with provable choices."""
    return ChoiceWorld.make


def make_model(schema: RowSchema, family: str, seed: int, name: str = "next-best-product") -> ChoiceModel:
    """A small model of this family that can be saved and served; another seed says something else."""
    block: Block = "product" if name == "next-best-product" else "channel"
    candidates = schema.products if block == "product" else schema.channels
    question = Question(name, candidates, block, "joint", block == "product", 30.0)
    layout, draw = Layout.of(question, schema), np.random.default_rng(seed)
    prior = np.log(draw.dirichlet(np.full(len(candidates) + 1, 50.0))).astype(np.float32)
    scorer: Scorer = PriorScorer(layout, prior)
    if family == "lightgbm":
        lines = draw.normal(size=(200, len(layout.pair_names)))
        options = {"verbosity": -1, "min_data_in_leaf": 5, "num_threads": 1, "num_leaves": 8}
        target = lines[:, -1] + lines[:, 0] * draw.normal()
        scorer = LightGBMScorer(layout, prior, lightgbm.train(options, lightgbm.Dataset(lines, target), 20))
    elif family == "torch":
        import torch

        from serving.network import Architecture, ChoiceNetwork, TorchScorer

        architecture = Architecture(len(layout.customer_names), len(candidates), len(layout.candidate_names), 8, 4)
        network = ChoiceNetwork(architecture)
        network.prior.copy_(torch.from_numpy(prior))
        scorer = TorchScorer(layout, prior, architecture, network)
    return ChoiceModel(question, scorer, Calibration("identity"), schema)


@pytest.fixture(scope="session")
def model_of() -> Callable[..., ChoiceModel]:
    """`model_of(schema, family, seed, name)` makes a small model."""
    return make_model


@pytest.fixture(scope="session")
def simulated_home(simulated_bank: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with the features of the simulated bank, built once for all tests; nobody builds into it again."""
    from features.build import build_features

    home = Home(tmp_path_factory.mktemp("simulated_home"))
    build_features(simulated_bank, home)
    return home


@pytest.fixture(scope="session")
def simulated_bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated bank of 300 customers over six months, made once for all tests; nobody writes into it."""
    from features.simulate import simulate

    folder = tmp_path_factory.mktemp("simulated") / "bank"
    simulate(folder, customers=300, months=6, seed=11)
    return folder


@dataclass
class PostgresServer:
    """A server of these tests alone: on a socket in a folder that only its own user can enter, durable (fsync)."""

    programs: Path
    folder: Path
    user: str | None
    """Whom to run as; PostgreSQL refuses to be run by root. None: whoever runs the tests."""
    process: subprocess.Popen[bytes] | None = None
    databases: int = 0

    def start(self, durable: str = "fsync=on") -> None:
        options = ("listen_addresses=", durable, "shared_buffers=64MB", f"unix_socket_directories={self.folder}")
        settings = [part for option in options for part in ("-c", option)]
        data, log = self.folder / "data", self.folder / "log"
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", data, *settings], stdout=sink, stderr=sink, user=self.user
            )
        ready = [self.programs / "pg_isready", "-q", "-h", self.folder]
        until = time.monotonic() + 240  # a crashed server brings its files to disk first: slow on a busy one
        while subprocess.run(ready, check=False).returncode:
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: at once and in order; SIGQUIT: as if it had crashed."""
        assert self.process
        self.process.send_signal(how)
        self.process.wait(120)

    def new_database(self) -> str:
        """The URL of a database that nobody has used."""
        self.databases += 1
        name = f"test{self.databases}"
        subprocess.run([self.programs / "createdb", "-h", self.folder, "-U", "postgres", name], check=True)
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def ask(self, url: str, query: str) -> str:
        """What psql answers: columns separated by |, rows by line ends."""
        done = subprocess.run(
            [self.programs / "psql", "-XAtq", "-c", query, url], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server; skips with the reason where its programs are not installed."""
    installed = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *_on_path("initdb")]
    programs = next((folder for folder in installed if (folder / "initdb").exists()), None)
    if programs is None:
        pytest.skip("PostgreSQL's server programs are not on this machine (Debian: apt-get install postgresql)")
    user = _another_user() if os.geteuid() == 0 else None
    # Not in tmp_path: a socket's path has at most 107 characters, and another user has to reach it.
    with tempfile.TemporaryDirectory(prefix="nextbest-postgres-") as name:
        folder = Path(name)
        if user:
            shutil.chown(folder, user)
        initdb = [programs / "initdb", "-D", folder / "data", "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
        subprocess.run(initdb, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
        server = PostgresServer(programs, folder, user)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """A database of this test alone."""
    return postgres_server.new_database()


@dataclass
class RedisServer:
    """A server of these tests alone: on a socket in a folder of its own, with nothing on disk."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    databases: int = 0

    def start(self, *options: str) -> None:
        socket = self.folder / "redis.sock"
        command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--save", "", "--databases", "1000"]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, cwd=self.folder)
        until = time.monotonic() + 60
        while not socket.exists():
            assert self.process.poll() is None, f"redis-server ended with {self.process.returncode}"
            assert time.monotonic() < until, "redis-server does not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """As if the machine had lost it: what it held is gone."""
        assert self.process
        self.process.kill()
        self.process.wait(60)
        (self.folder / "redis.sock").unlink(missing_ok=True)

    def new_database(self) -> str:
        """The URL of a database that nobody has used."""
        self.databases += 1
        return f"unix://{self.folder}/redis.sock?db={self.databases}"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis server; skips with the reason where its program is not installed."""
    yield from _redis_server()


@pytest.fixture
def own_redis_server() -> Iterator[RedisServer]:
    """A Redis server that a test may stop."""
    yield from _redis_server()


def _redis_server() -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("Redis's server program is not on this machine (Debian: apt-get install redis-server)")
    with tempfile.TemporaryDirectory(prefix="nextbest-redis-") as name:  # a socket's path has at most 107 characters
        server = RedisServer(Path(name))
        server.start()
        yield server
        if server.process and server.process.poll() is None:
            server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """A database of this test alone."""
    return redis_server.new_database()


def _on_path(program: str) -> list[Path]:
    found = shutil.which(program)
    return [Path(found).parent] if found else []


def _another_user() -> str:
    """Someone other than root; Debian's package makes `postgres`."""
    names = {user.pw_name for user in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file goes first, so that on two processes the others run beside it and nobody waits for it alone."""
    items.sort(key=lambda item: item.path.name != "test_end_to_end.py")


CHROMIUM = os.environ.get("NEXTBEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser, the machine's own: Playwright's download is not used."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install -e .[dev]")
    if CHROMIUM is None:
        pytest.skip("Chromium is not on this machine (Debian: apt-get install chromium), nor is NEXTBEST_CHROMIUM set")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(QUIET))
        yield browser
        browser.close()
