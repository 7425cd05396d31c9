"""The run directory: whole files or none."""

from __future__ import annotations

import json

import pytest

from servestorm import store
from servestorm.errors import StudyEnvironmentError


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    store.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        store.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_what_is_being_written_is_never_seen_under_its_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("os.fsync", lambda _fd: seen.append(sorted(p.name for p in tmp_path.iterdir())))
    store.write_text(tmp_path / "a.txt", "x")
    assert seen == [[".a.txt.tmp"]]
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyEnvironmentError, match=r"file/a\.txt cannot be written"):
        store.write_text(tmp_path / "file" / "a.txt", "x")


def test_a_full_disk_is_named():
    with pytest.raises(StudyEnvironmentError, match="cannot be written"):
        store.write_text(__import__("pathlib").Path("/dev/full/x"), "x")


def test_two_runs_of_one_second_get_two_folders(tmp_path):
    paths = {store.create_run(tmp_path, "a") for _ in range(3)}
    assert len(paths) == 3
    assert all((path / "cells").is_dir() for path in paths)
