"""Which requests the local page refuses, and what ends a computation."""

import socket
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from urllib.parse import urlsplit

import pytest
import requests

from octdino.inference import web_app
from octdino.inference.served_results import Computation, Stopped
from octdino.inference.web_app import MIB, MOST_FILES, MOST_HEADERS, WAITING

from .served import computation_of, refusal, send, serving

FIELD = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nt\r\n--b--\r\n'  # no file


@pytest.fixture(scope="module")
def address(model):
    with serving(computation_of(model), most_bytes=MIB) as address:
        yield address


@pytest.fixture
def scan(run):
    return (run.parent / "files" / "p0" / "0.png").read_bytes()


def raw(address: str, request: bytes) -> bytes:
    """The answer to the bytes of a request; the server is expected to end the connection within 5 s."""
    with closing(socket.create_connection((urlsplit(address).hostname, urlsplit(address).port), 5)) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_body_that_announces_too_many_bytes_is_refused_before_it_arrives(address):
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    answer = raw(address, f"{head}Content-Length: {10 * MIB}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"more than 1 MiB" in answer


def test_a_body_without_a_length_is_refused_when_it_is_too_long(address):
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    # The head of the part is more than allowed, and no chunk says that the body has ended. Much more would be unread
    # when the server closes the connection, which resets it and can take the answer with it.
    chunks = [part, *[bytes(2**16)] * ((MIB + MOST_HEADERS) // 2**16)]
    body = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    assert raw(address, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + body).startswith(b"HTTP/1.1 413 ")


def test_too_many_files_are_refused(address):
    status, text = refusal(send(address, *[("a.png", b"")] * (MOST_FILES + 1)))
    assert status == 400
    assert str(MOST_FILES) in text


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"a=1", "application/x-www-form-urlencoded", 415),
        (b"", "multipart/form-data", 400),
        (b"--b--\r\n", "multipart/form-data; boundary=b", 400),
        (b"no multipart at all", "multipart/form-data; boundary=b", 400),
        (FIELD, "multipart/form-data; boundary=b", 400),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\n\r\n--b--\r\n", "multipart/form-data; boundary=b", 400),
    ],
)  # fmt: skip
def test_what_is_no_form_with_files_is_refused(body, kind, status, address):
    response = requests.post(f"{address}/predict", body, headers={"Content-Type": kind}, timeout=10)
    assert refusal(response)[0] == status


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[", "", "10.0.0.1"])
def test_another_servers_name_is_refused(host, address):
    for path in ("/", "/serve.js", "/model", "/nothing"):
        response = requests.get(f"{address}{path}", headers={"Host": host}, timeout=10)
        assert refusal(response) == (400, "the Host header names another server")


@pytest.mark.parametrize("host", ["localhost", "localhost:9999", "127.0.0.1", "[::1]:8000"])
def test_names_of_this_machine_are_answered(host, address):
    assert requests.get(address, headers={"Host": host}, timeout=10).status_code == 200


def test_a_server_for_a_network_is_reached_by_its_address_but_by_no_other_name(model):
    with serving(computation_of(model), host="0.0.0.0") as address:
        codes = [
            requests.get(address, headers={"Host": host}, timeout=10).status_code
            for host in ("192.0.2.7:8000", socket.gethostname(), "evil.example")
        ]
    assert codes == [200, 200, 400]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_post_of_another_site_is_refused(headers, address, scan):
    assert refusal(send(address, ("a.png", scan), headers=headers)) == (403, "a request of another site")


def test_a_post_of_the_page_itself_is_answered(address, scan):
    headers = {"Origin": address, "Sec-Fetch-Site": "same-origin"}
    assert send(address, ("a.png", scan), headers=headers).status_code == 200


def test_every_answer_forbids_foreign_content_and_caching(address, scan):
    answers = [
        requests.get(f"{address}{path}", timeout=10) for path in ("/", "/serve.js", "/page.css", "/model", "/no")
    ]
    answers += [send(address, ("a.png", scan)), send(address, headers={"Origin": "null"})]
    answers += [
        requests.get(f"{address}/predict", timeout=10),
        requests.get(address, headers={"Host": "x"}, timeout=10),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 404, 200, 403, 405, 400]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src data:")
        assert "unsafe" not in policy
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["/../pyproject.toml", "/serve.py", "/static/../../x", "//etc/passwd", "/%2e%2e/x"])
def test_no_other_file_is_served(path, address):
    assert raw(address, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())[9:12] == b"404"


class Gate(Computation):
    """A computation that waits until the test opens it."""

    entered, opened, stopped = threading.Semaphore(0), threading.Event(), threading.Event()

    def result(self, uploads, pictures, progress):
        self.entered.release()
        while not self.opened.wait(0.05):
            try:
                progress.check()
            except Stopped:
                self.stopped.set()
                raise
        return {"files": []}


@pytest.fixture
def gate(model):
    Gate.entered, Gate.opened, Gate.stopped = threading.Semaphore(0), threading.Event(), threading.Event()
    plain = computation_of(model)
    return Gate(plain.ensemble, plain.no_maps)


def test_one_request_is_computed_at_a_time_and_a_full_queue_is_answered_at_once(gate):
    with serving(gate) as address, ThreadPoolExecutor(WAITING + 2) as pool:
        sent = {pool.submit(send, address, ("a.png", b"x")) for _ in range(WAITING + 2)}
        try:
            (refused,), waiting = wait(sent, timeout=10, return_when=FIRST_COMPLETED)
            assert refusal(refused.result()) == (503, f"{WAITING + 1} requests are being answered; try again later")
            assert refused.result().headers["retry-after"] == "2"
            assert gate.entered.acquire(timeout=10)
            assert not gate.entered.acquire(timeout=0.2)
        finally:
            gate.opened.set()
        assert [one.result(10).status_code for one in waiting] == [200] * (WAITING + 1)


def test_clients_that_leave_stop_their_computation_and_give_up_their_place(gate):
    def leave(address):
        with pytest.raises(requests.ReadTimeout):
            requests.post(f"{address}/predict", files={"file": ("a.png", b"x")}, timeout=0.5)

    with serving(gate) as address:
        with ThreadPoolExecutor(WAITING + 1) as pool:
            list(pool.map(leave, [address] * (WAITING + 1)))
        assert gate.stopped.wait(10)
        gate.opened.set()
        for _ in range(50):
            if (status := send(address, ("a.png", b"x")).status_code) == 200:
                break
            time.sleep(0.1)
        assert status == 200


def test_the_end_of_the_server_stops_a_computation(gate, monkeypatch):
    monkeypatch.setattr("octdino.inference.serve.SECONDS_TO_END", 1)
    with ThreadPoolExecutor(1) as pool:
        with serving(gate) as address:
            sent = pool.submit(send, address, ("a.png", b"x"))
            assert gate.entered.acquire(timeout=10)
        assert gate.stopped.wait(1)
        with suppress(requests.ConnectionError):  # where the server had no time to answer
            assert sent.result(10).status_code >= 500


def test_a_slow_upload_is_ended(address, monkeypatch):
    monkeypatch.setattr(web_app, "CHUNK_SECONDS", 0.2)
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    answer = raw(address, f"{head}Content-Length: 100\r\n\r\n--b\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 408 ")
