"""``rd serve``: what it refuses before anything is loaded, and a server that is started and stopped."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval_detect.cli.main import main
from tests.serving import TOKEN, form, pictures

ROOT = Path(__file__).parents[2]


def complaint(capsys, *arguments):
    code = main(["serve", *arguments])
    said = capsys.readouterr().err
    assert said.count("Error: ") == 1 and "Traceback" not in said
    return code, said


def test_other_addresses_without_a_token(capsys, built):
    code, said = complaint(capsys, "--host", "0.0.0.0", "--index", str(built))
    assert code == 2 and "--token-file" in said


def test_a_weak_token(capsys, built, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("secret\n")
    assert complaint(capsys, "--token-file", str(tmp_path / "token"), "--index", str(built))[0] == 2
    for content, said in (
        (b"\xe9" * 40, "no UTF-8 text"),
        (("x" * 40).encode("utf-16-le"), "UTF-16 without"),
    ):
        (tmp_path / "token").write_bytes(content)
        assert said in complaint(capsys, "--token-file", str(tmp_path / "token"), "--index", str(built))[1]
    monkeypatch.setenv("RD_TOKEN", "hunter2")
    code, said = complaint(capsys, "--index", str(built))
    assert code == 2 and "hunter2" not in said


def test_a_port_in_use(capsys, built):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = complaint(capsys, "--port", str(port), "--index", str(built))
    assert code == 2 and str(port) in said and "--port" in said


def test_no_index(capsys, tmp_path):
    code, said = complaint(capsys, "--port", "0", "--index", str(tmp_path / "none"))
    assert code == 1 and "none" in said


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
def test_the_extra_is_named_where_it_is_missing(built, package):
    """In a process of its own: what is imported anew here would stand beside what other tests hold."""
    program = f"import sys; sys.modules[{package!r}] = None\nfrom retrieval_detect.cli.main import main\n"
    program += f"sys.exit(main(['serve', '--index', {str(built)!r}]))"
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "retrieval-detect[web]" in done.stderr


def test_it_answers_and_ends_on_ctrl_c(built):
    import httpx

    command = [sys.executable, "-m", "retrieval_detect", "serve", "--index", str(built), "--port", "0"]
    env = os.environ | {"RD_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    running = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://\S+", running.stderr.readline()).group()
        assert httpx.get(f"{url}/healthz", timeout=60).json()["status"] == "ok"
        answer = httpx.post(f"{url}/v1/query", files=form(*pictures(1)), timeout=60)
        assert answer.json()["results"][0]["verdict"]
    finally:
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert "Traceback" not in said
    assert "POST /v1/query 200" in said
