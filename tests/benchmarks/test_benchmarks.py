"""What the benchmarks say of numbers, and that their load generator does not flatter: servers with known delays.

Nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from decisions import picked
from figures import arrivals, median, percentile, ratio
from load import Load, Order, whole_answer
from run import benchmarks

HERE = Path(__file__).resolve().parent


class Stalling:
    """An HTTP server in a thread that answers at once, but for one stall of `stall` seconds at its `at`-th request."""

    def __init__(self, at: int, stall: float, status: int = 200) -> None:
        self._at, self._stall, self._status = at, stall, status
        self.asked = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        body = b"{}"
        head = f"HTTP/1.1 {self._status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        while connection.recv(65_536):
            self.asked += 1
            if self.asked == self._at:
                time.sleep(self._stall)
            connection.sendall(head + body)

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def stalling() -> Iterator[Stalling]:
    server = Stalling(at=3, stall=0.5)
    yield server
    server.close()


def order(port: int, **given: object) -> Order:
    return Order(
        **{"host": "127.0.0.1", "port": port, "path": "/", "bodies": ["{}"], "connections": 1, "seconds": 0.7} | given
    )  # type: ignore[arg-type]


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = list(range(1, 101))
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7], 0.01) == 7
    assert percentile([1, 1000], 0.5) == 1
    assert math.isnan(percentile([], 0.5))
    with pytest.raises(ValueError, match="however it is 0"):
        percentile([1], 0)


def test_a_ratio_is_taken_round_by_round_so_that_a_slow_round_goes_out() -> None:
    found = ratio([10, 1, 30], [5, 0.5, 10])
    assert (found.median, found.least, found.most) == (2, 2, 3)
    assert str(found) == "2 [2–3]"
    with pytest.raises(ValueError, match="however they are 1 and 2"):
        ratio([1], [1, 2])


def test_the_median_of_an_even_number_lies_between_both_middle_ones() -> None:
    assert median([4, 1, 3, 2]) == 2.5
    assert median([3, 1, 2]) == 2


def test_arrivals_are_fixed_beforehand_by_their_seed_and_come_at_their_rate() -> None:
    first, again, other = arrivals(100, 50, 1), arrivals(100, 50, 1), arrivals(100, 50, 2)
    assert first == again != other
    assert first == sorted(first)
    assert first[0] > 0
    assert first[-1] < 50
    assert abs(len(first) - 5_000) < 5 * math.sqrt(5_000)


def test_a_stall_counts_for_everyone_who_was_to_ask_meanwhile(stalling: Stalling) -> None:
    """At 100 a second on one connection, a stall of half a second is met by some fifty: the n-th from its end waits
    n hundredths of a second. Who counts from the moment of sending sees one slow answer."""
    measured = Load(order(stalling.port, arrivals=[number / 100 for number in range(100)])).run()
    assert len(measured.latencies) == 100
    waited = [latency for latency in measured.latencies if latency > 50_000]
    assert len(waited) >= 40
    assert max(waited) >= 400_000
    assert not measured.failed


def test_in_a_closed_loop_a_stall_is_one_slow_answer(stalling: Stalling) -> None:
    measured = Load(order(stalling.port)).run()
    assert sum(latency > 400_000 for latency in measured.latencies) == 1


def test_a_503_is_counted_as_refused_and_other_answers_as_failed() -> None:
    for status, refused, failed in ((503, True, False), (500, False, True)):
        server = Stalling(at=0, stall=0, status=status)
        measured = Load(order(server.port, seconds=0.1)).run()
        server.close()
        assert not measured.latencies
        assert bool(measured.refused) is refused
        assert bool(measured.failed) is failed


def test_what_is_never_answered_is_an_error_and_no_latency() -> None:
    server = Stalling(at=2, stall=30)
    measured = Load(order(server.port, arrivals=[0.0, 0.01, 0.02], drain_seconds=0.2)).run()
    server.close()
    assert len(measured.latencies) == 1
    assert measured.failed == {"unanswered": 2}


def test_an_answer_is_whole_when_its_length_or_its_last_chunk_is_there() -> None:
    assert whole_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{") is None
    assert whole_answer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") == (200, b"{}")
    assert whole_answer(b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n") is None
    chunked = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert whole_answer(chunked) == (503, b"2\r\n{}\r\n0\r\n\r\n")


def test_a_name_that_is_there_is_taken_exactly_and_another_is_how_names_begin() -> None:
    names = ["ours1:new", "ours2:new", "naive", "naive-2", "tidied"]
    assert picked(names, ["naive", "ours"]) == ["naive", "ours1:new", "ours2:new"]
    assert picked(names, []) == names


def test_every_module_with_a_main_is_run_and_the_decisions_come_first(tmp_path: Path) -> None:
    for name, text in (("one", "\ndef main(argv): ..."), ("decisions", "\ndef main(argv): ..."), ("two", "x = 1")):
        (tmp_path / f"{name}.py").write_text(text)
    assert benchmarks(tmp_path) == ["decisions", "one"]
    assert "decisions" in benchmarks()


def test_a_short_run_of_the_empty_endpoint_gives_a_table_and_a_file(tmp_path: Path) -> None:
    command = [sys.executable, HERE / "decisions.py", "--only", "empty-uvicorn", "--seconds", "0.2", "--rounds", "1"]
    done = subprocess.run([*command, "--out", tmp_path / "said"], capture_output=True, text=True, check=True)
    [one] = json.loads((tmp_path / "said.json").read_text())["rounds"]
    said = one["empty-uvicorn"]
    assert said["alone"]["answers"] > 0
    assert said["saturated"]["answers"] > 0
    assert said["half"]["failed"] == {}
    assert "| empty-uvicorn |" in done.stdout
    assert (tmp_path / "said.md").read_text() == done.stdout
