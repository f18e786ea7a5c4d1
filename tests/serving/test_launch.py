"""The real server, as a process: it starts, answers, shows nothing of BentoML, and goes without a trace."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from features.errors import InputError, NotBuilt
from features.home import Home
from features.importing import Bank
from serving.launch import Server, free_port
from serving.settings import Settings

AS_OF = "2024-06-01T12:00:00Z"


@pytest.fixture(scope="module")
def settings(home: Home) -> Settings:
    return Settings(home.root, f"sqlite:///{home.root}/none/mlflow.db")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "log"


@pytest.fixture(scope="module")
def server(settings: Settings, output: Path) -> Iterator[Server]:
    with Server(settings, port=free_port(), output=output) as running:
        running.wait_ready(60)
        yield running
        assert running.stop() == 0, "a clean end"


def call(server: Server, method: str, path: str, body: object = None) -> tuple[int, str, bytes]:
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request(method, path, body and json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers["content-type"], response.read()
    finally:
        connection.close()


def call_ready(server: Server, method: str, path: str, body: object = None) -> tuple[int, str, bytes]:
    """As `call`, by a worker that is ready: the port is shared, and one that still opens its models says 503."""
    until = time.monotonic() + 60
    while (answer := call(server, method, path, body))[0] == 503 and time.monotonic() < until:
        time.sleep(0.1)
    return answer


def test_the_real_server_decides_ranks_and_remembers(server: Server) -> None:
    status, _, raw = call(server, "POST", "/v1/decide", {"customer_id": "held", "as_of": AS_OF})
    decision: dict[str, Any] = json.loads(raw)
    assert (status, decision["degraded"]) == (200, True)
    record = json.loads(call(server, "GET", f"/v1/decisions/{decision['decision_id']}")[2])
    assert {candidate["product_id"] for candidate in record["candidates"]} == {"loan", None}
    status, _, raw = call(server, "POST", "/v1/rank", {"customer_id": "held", "as_of": AS_OF})
    assert [product["product_id"] for product in json.loads(raw)["products"]] == ["loan"]


@pytest.mark.parametrize("path", ["/", "/docs.json", "/schema.json", "/healthz", "/static_content/index.css"])
def test_nothing_of_bentoml_answers(server: Server, path: str) -> None:
    status, media, body = call(server, "GET", path)
    assert (status, media) == (404, "application/problem+json")
    assert b"googletagmanager" not in body


def test_health_and_metrics_are_ours(server: Server) -> None:
    assert json.loads(call(server, "GET", "/livez")[2]) == {"live": True}
    assert json.loads(call(server, "GET", "/readyz")[2])["ready"] is True
    assert b"nextbest_latency_seconds" in call(server, "GET", "/metrics")[2]


def test_a_path_cannot_forge_a_line_in_the_log(server: Server, output: Path) -> None:
    assert call(server, "GET", "/x%0a2024-06-01%20[ERROR]%20forged")[0] == 404
    assert "forged" not in output.read_text()


def test_what_a_worker_has_open_is_not_looked_through_for_garbage(settings: Settings) -> None:
    program = """import gc; from serving import service
opened = service._open()
print(gc.get_freeze_count(), len(gc.get_objects()))
opened.ledger.close()"""
    environment = {**os.environ, **settings.to_environment()}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    kept, looked_through = map(int, done.stdout.split())
    assert kept > 100_000
    assert looked_through < 1_000


def test_it_listens_on_loopback_only(server: Server) -> None:
    port = int(server.url.rsplit(":", 1)[1])
    family = psutil.Process(server.pid)
    listening = [
        connection.laddr
        for process in (family, *family.children(recursive=True))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert port in {address.port for address in listening}
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_a_second_server_finds_the_port_taken(server: Server, settings: Settings) -> None:
    with pytest.raises(InputError, match="choose another --port"):
        Server(settings, port=int(server.url.rsplit(":", 1)[1]))


@pytest.mark.parametrize("killed", ["starter", "supervisor"])
def test_when_its_parent_is_killed_a_process_stops_by_itself_and_nothing_is_left(
    killed: str, bank: Bank, build_home: Callable[[Bank], Home], tmp_path: Path
) -> None:
    """The victim dies without a chance to stop anything; those that it started have to notice themselves."""
    program = (
        "import sys; from pathlib import Path; from serving.launch import *; from serving.settings import Settings\n"
        "server = Server(Settings(Path(sys.argv[1]), sys.argv[2]), port=int(sys.argv[3]), output=Path(sys.argv[4]))\n"
        "server.wait_ready(60)\n"
        "print(server.pid, flush=True); server.wait()"
    )
    port = free_port()
    own = build_home(bank).root  # nothing that dies here is in anybody's way
    root = str(Path(__file__).resolve().parents[2])
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(own), f"sqlite:///{own}/none/mlflow.db", str(port), str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    assert len(family) >= 2
    os.kill(starter.pid if killed == "starter" else pid, signal.SIGKILL)
    starter.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("workers", [0, 65])
def test_a_number_of_workers_that_makes_no_sense_is_refused(settings: Settings, workers: int) -> None:
    with pytest.raises(InputError, match=r"1\.\.64"):
        Server(settings, workers=workers)


def test_two_workers_share_the_ledger_of_a_home(bank: Bank, build_home: Callable[[Bank], Home], tmp_path: Path) -> None:
    own = build_home(bank).root
    with Server(
        Settings(own, f"sqlite:///{own}/none/mlflow.db"), port=free_port(), workers=2, output=tmp_path / "log"
    ) as running:
        running.wait_ready(60)
        family = psutil.Process(running.pid).children(recursive=True)
        # One ready worker answers for the server; the other has the ledger open before it is ready.
        until = time.monotonic() + 60
        while len(having_open(family, own / "ledger.db")) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        workers = having_open(family, own / "ledger.db")
        assert len(workers) == 2
        answers = [
            call_ready(running, "POST", "/v1/decide", {"customer_id": "held", "as_of": AS_OF}) for _ in range(20)
        ]
        assert {status for status, _, _ in answers} == {200}
        workers[0].kill()  # its supervisor starts another one in its place
        ids = [json.loads(raw)["decision_id"] for _, _, raw in answers]
        for decision_id in ids:  # whichever worker answers
            assert call_ready(running, "GET", f"/v1/decisions/{decision_id}")[0] == 200
        assert call_ready(running, "POST", "/v1/decide", {"customer_id": "held", "as_of": AS_OF})[0] == 200
    with closing(sqlite3.connect(own / "ledger.db")) as connection:
        assert connection.execute("SELECT count(*) FROM decisions").fetchone() == (21,)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def having_open(processes: Sequence[psutil.Process], path: Path) -> list[psutil.Process]:
    """Those of the processes that have the file open."""
    return [one for one in processes if str(path) in {file.path for file in one.open_files()}]


def test_two_workers_share_a_ledger_on_postgres(
    settings: Settings, postgres_url: str, postgres_server: Any, tmp_path: Path
) -> None:
    shared = replace(settings, ledger_url=postgres_url)
    with Server(shared, port=free_port(), workers=2, output=tmp_path / "log") as running:
        running.wait_ready(60)
        # One ready worker answers for the server; the other is connected before it is ready.
        connected = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'nextbest'"
        until = time.monotonic() + 60
        while int(postgres_server.ask(postgres_url, connected)) < 2 and time.monotonic() < until:
            time.sleep(0.2)
        answers = [
            call_ready(running, "POST", "/v1/decide", {"customer_id": "held", "as_of": AS_OF}) for _ in range(20)
        ]
        assert {status for status, _, _ in answers} == {200}
        ids = [json.loads(raw)["decision_id"] for _, _, raw in answers]
        for decision_id in ids:  # whichever worker answers
            assert call_ready(running, "GET", f"/v1/decisions/{decision_id}")[0] == 200
        family = psutil.Process(running.pid).children(recursive=True)
    assert postgres_server.ask(postgres_url, "SELECT count(*) FROM nextbest.decisions") == "20"
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


def test_a_home_without_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotBuilt, match="features build"):
        Server(Settings(tmp_path, "sqlite:///none"), port=free_port())


@pytest.mark.parametrize(("host", "port"), [("localhost", 3000), ("example.com", 3000), ("127.0.0.1", 70_000)])
def test_a_wrong_address_is_refused(settings: Settings, host: str, port: int) -> None:
    with pytest.raises(InputError):
        Server(settings, host=host, port=port)


def test_it_ends_at_once_even_while_it_starts(settings: Settings, tmp_path: Path) -> None:
    starting = Server(settings, port=free_port(), output=tmp_path / "log")
    time.sleep(0.2)
    started = time.monotonic()
    starting.stop()
    assert time.monotonic() - started < 15
