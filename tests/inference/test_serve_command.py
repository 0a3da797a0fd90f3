"""The command octdino serve: its address, its end, and its errors of one line."""

import os
import re
import signal
import socket
import threading

import pytest
import requests

from octdino.cli import main
from octdino.inference import serve


def test_the_command_prints_its_address_and_ends_at_ctrl_c_without_a_traceback(model, monkeypatch, capfd):
    asked = {}

    def printed(line, flush):
        asked["line"] = line
        asked["thread"] = threading.Thread(target=ask)
        asked["thread"].start()

    def ask():
        address = re.match(r"http://127\.0\.0\.1:\d+/", asked["line"])[0]
        try:
            asked["model"] = requests.get(f"{address}model", timeout=20).json()
        finally:
            os.kill(os.getpid(), signal.SIGINT)  # the server has its handler by now, as it has answered

    monkeypatch.setattr(serve, "print", printed, raising=False)
    assert main(["serve", str(model), "--port", "0", "--most-mb", "3"]) == 0
    asked["thread"].join(5)
    assert asked["model"]["most_bytes"] == 3 * 2**20
    assert asked["line"].endswith("/ (Ctrl-C ends the server)")
    assert capfd.readouterr().err == ""


def failing(capsys, *arguments) -> str:
    assert main(["serve", *map(str, arguments)]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_a_missing_extra_is_named(model, capsys, monkeypatch):
    monkeypatch.setattr(serve, "NEEDED", ("starlette", "no_such_package"))
    assert failing(capsys, model) == (
        "octdino serve: error: needs no_such_package; install with: pip install 'octdino[serve]'"
    )


def test_a_taken_port_is_named_before_the_model_is_read(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failing(capsys, tmp_path, "--port", port)
    assert line == (
        f"octdino serve: error: --host 127.0.0.1 --port {port}: Address already in use; --port 0 takes any free port"
    )


def test_a_host_that_is_none_is_named(tmp_path, capsys):
    assert "no such host" in failing(capsys, tmp_path, "--host", "no such host")


def test_a_folder_that_is_no_model_is_named(tmp_path, capsys):
    assert str(tmp_path / "model.json") in failing(capsys, tmp_path, "--port", "0")


def test_a_gallery_of_another_model_is_refused(model, tmp_path, capsys):
    assert "no such file" in failing(capsys, model, "--port", "0", "--gallery", tmp_path / "embeddings.h5")


def test_a_port_is_a_number_up_to_65535(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["serve", "model", "--port", "65536"])
    assert stop.value.code == 2
    assert "expected 0 to 65535" in capsys.readouterr().err
