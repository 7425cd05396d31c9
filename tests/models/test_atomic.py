"""What is written appears whole or not at all, and what stands in the way is said in one sentence."""

import errno

import pytest

from models.atomic import replacing, staging
from models.errors import ModelEnvironmentError, ModelError, ParityError


def test_files_appear_together_and_nothing_else_stays(tmp_path):
    with replacing([tmp_path / "a", tmp_path / "b"]) as (first, second):
        first.write_text("1")
        second.write_text("2")
        assert not (tmp_path / "a").exists()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "1", "b": "2"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("x"), OSError(errno.ENOSPC, "No space left")])
def test_a_failure_keeps_what_was_there(tmp_path, error):
    (tmp_path / "a").write_text("earlier")

    def write():
        with replacing([tmp_path / "a"]) as (path,):
            path.write_text("half")
            raise error

    with pytest.raises(BaseException):  # noqa: B017
        write()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "earlier"}


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "x"),
        OSError(errno.EDQUOT, "x"),
        RuntimeError("failed writing file: No space left on device"),
        ModelError("torch-model-archiver could not write cnn.mar: OSError: [Errno 28] No space left on device"),
    ],
)
def test_a_full_disk_is_named_whoever_noticed_it(tmp_path, error):
    with pytest.raises(ModelEnvironmentError, match=f"no space left for {tmp_path}"), staging(tmp_path):
        raise error


def test_a_failure_that_says_nothing_is_put_down_to_a_disk_that_is_full(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("models.atomic.shutil.disk_usage", lambda path: usage)
    with pytest.raises(ModelEnvironmentError, match="no space left"), staging(tmp_path):
        raise RuntimeError("unexpected pos 64 vs 0")
    with pytest.raises(ParityError), staging(tmp_path):
        raise ParityError("said for itself")


def test_other_failures_pass_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="ours"), staging(tmp_path):
        raise RuntimeError("ours")


def test_a_file_in_the_way_of_the_folder_is_named(tmp_path):
    (tmp_path / "out").write_text("a file")
    with (
        pytest.raises(ModelError, match="out/models cannot be made, a file is in the way"),
        staging(tmp_path / "out" / "models"),
    ):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path))
    with pytest.raises(ModelEnvironmentError, match="cannot be written"), staging(tmp_path):
        raise error
