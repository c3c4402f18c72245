"""What is written durably, and what is said where that fails."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections import namedtuple

import pytest

from retrieval_detect.files import write_atomically, write_bytes

Usage = namedtuple("Usage", "total used free")


def short_write(_file):
    # What numpy says where the system takes only a part of an array.
    raise OSError("3000000 requested and 524256 written")


def test_a_full_disk_is_known_where_a_library_gives_no_number(tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 0))
    with pytest.raises(OSError, match="No space left") as error:
        write_atomically(path, short_write)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    assert list(tmp_path.iterdir()) == []


def test_an_error_without_a_number_keeps_its_words_while_there_is_room(tmp_path):
    with pytest.raises(OSError, match="3000000 requested") as error:
        write_atomically(tmp_path / "a.npy", short_write)
    assert error.value.errno is None


def test_an_error_names_what_was_to_be_written(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "a.json"
    with pytest.raises(OSError, match="No space left") as error:
        write_bytes(path, b"{}")
    assert error.value.filename == str(path)


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    missing = tmp_path / "source"
    with pytest.raises(FileNotFoundError) as error:
        write_atomically(tmp_path / "copy", lambda file: file.write(missing.read_bytes()))
    assert error.value.filename == str(missing)


def test_a_name_as_long_as_the_system_allows(tmp_path):
    path = tmp_path / ("a" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


def test_what_is_no_file_is_written_to_and_stays(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_bytes(pipe, b"x" * 100)
    reader.join(timeout=60)
    assert read == [b"x" * 100] and pipe.is_fifo()
