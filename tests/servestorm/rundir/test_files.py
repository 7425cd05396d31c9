"""The run directory: whole files or none."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from servestorm.errors import StudyEnvironmentError, StudyError
from servestorm.rundir import files


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_what_is_being_written_is_never_seen_under_its_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("os.fsync", lambda _fd: seen.append(sorted(p.name for p in tmp_path.iterdir())))
    files.write_text(tmp_path / "a.txt", "x")
    assert seen == [[f".a.txt.{os.getpid()}.tmp"]]
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_of_two_commands_that_write_one_file_the_last_one_leaves_it_whole(tmp_path, monkeypatch):
    path, real = tmp_path / "report.html", os.fsync
    script = (
        "import pathlib, sys; from servestorm.rundir import files; files.write_text(pathlib.Path(sys.argv[1]), 'b')"
    )

    def write_meanwhile(descriptor):
        subprocess.run([sys.executable, "-c", script, str(path)], check=True)
        real(descriptor)

    monkeypatch.setattr("os.fsync", write_meanwhile)
    files.write_text(path, "a longer page")
    assert path.read_text() == "a longer page"
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyEnvironmentError, match=r"file/a\.txt cannot be written"):
        files.write_text(tmp_path / "file" / "a.txt", "x")


def test_a_full_disk_is_named():
    with pytest.raises(StudyEnvironmentError, match="cannot be written"):
        files.write_text(__import__("pathlib").Path("/dev/full/x"), "x")


def test_a_write_that_fails_leaves_no_part_of_the_new_file(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    files.write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StudyEnvironmentError, match="no space left on device"):
        files.write_text(tmp_path / "a.txt", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_two_runs_of_one_second_get_two_folders(tmp_path):
    paths = {files.create_run(tmp_path, "a") for _ in range(3)}
    assert len(paths) == 3
    assert all((path / "cells").is_dir() for path in paths)


def test_a_run_that_cannot_be_made_leaves_no_folder(tmp_path, monkeypatch):
    real = Path.mkdir

    def full(path, *arguments, **options):
        if path.name == files.CELLS:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(StudyEnvironmentError, match="no space left on device"):
        files.create_run(tmp_path, "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": NaN}', "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("[1e999]", "1e999 is no number"),
        ("[" * 100_000 + "]" * 100_000, "is not JSON"),
        ("[" * 60 + "]" * 60, "is nested deeper than 50 levels"),
        ("[" + "1" * 5000 + "]", "is not JSON"),
        (r'["\ud800"]', "holds half a character"),
    ],
)
def test_a_file_that_would_break_its_reader_is_one_sentence(tmp_path, text, told):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(StudyError) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 500


def test_what_we_write_is_read_as_it_was(tmp_path):
    value = {"a": [1, 1.5, None, True, "µs 😀"], "b": {"c": {"d": [[[]]]}}}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    (tmp_path / "b.json").write_text(json.dumps(value))  # with escapes
    assert files.read_json(tmp_path / "b.json") == value
