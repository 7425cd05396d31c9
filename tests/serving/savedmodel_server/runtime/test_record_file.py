"""Records are read as TensorFlow wrote them; damage has TensorFlow's code."""

import pytest

from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.runtime.record_file import read_records


@pytest.fixture
def written(tmp_path):
    import tensorflow as tf

    def write(*records):
        with tf.io.TFRecordWriter(str(tmp_path / "records")) as writer:
            for record in records:
                writer.write(record)
        return tmp_path / "records"

    return write


def test_records_come_in_order_and_no_more_than_asked(written):
    file = written(b"a", b"", bytes(range(256)) * 100, b"last")
    assert read_records(file, 10) == [b"a", b"", bytes(range(256)) * 100, b"last"]
    assert read_records(file, 2) == [b"a", b""]


def test_an_empty_file_has_no_records(written):
    assert read_records(written(), 10) == []


def test_a_damaged_record_is_data_loss(written):
    file = written(b"first", b"second")
    file.write_bytes(file.read_bytes().replace(b"first", b"fIrst"))
    with pytest.raises(RequestError) as caught:
        read_records(file, 10)
    assert caught.value.code is Code.DATA_LOSS


def test_a_file_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(RequestError) as caught:
        read_records(tmp_path / "none", 10)
    assert caught.value.code is Code.NOT_FOUND
