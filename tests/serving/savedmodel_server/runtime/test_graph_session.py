"""A SavedModel runs through TensorFlow's C API, and what TensorFlow refuses has its code and its words."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.runtime.graph_session import load_saved_model
from serving.savedmodel_server.runtime.graph_weights import is_mostly_dense, read_meta_graph
from serving.savedmodel_server.versions.servable import Servable, ServableOptions
from tests.serving.savedmodel_server.savedmodel_zoo import save_without_functions

WITHOUT_TENSORFLOW = """
import sys
import numpy as np
from pathlib import Path
from serving.savedmodel_server.runtime.proto_modules import import_proto_modules
import_proto_modules()
from serving.savedmodel_server.versions.servable import Servable, ServableOptions
servable = Servable("m", 1, Path(sys.argv[1]), ServableOptions())
signature = servable.signature("")
(y,) = servable.run_alone(signature, (np.array([2.0], np.float32),), tuple(signature.outputs))
print(y.tolist(), "tensorflow" in sys.modules, "tensorflow.python" in sys.modules)
import tensorflow
from tensorflow.core.framework import tensor_pb2
print(tensorflow.constant(3).numpy(), tensorflow.make_tensor_proto([1]).__class__ is tensor_pb2.TensorProto)
"""


@pytest.fixture
def half_plus_two(zoo):
    servable = Servable("m", 1, zoo / "half_plus_two" / "1", ServableOptions())
    yield servable
    servable.close()


def test_a_model_runs_without_the_package_tensorflow_which_can_be_imported_afterwards(zoo):
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(zoo / "half_plus_two" / "1")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[3.0] False False", "3 True"], done.stderr


def test_what_tensorflow_refuses_has_its_code_and_its_words(half_plus_two):
    signature = half_plus_two.signature("")
    with pytest.raises(RequestError, match=r"Expects arg\[0\] to be float but double is provided") as caught:
        half_plus_two.run_alone(signature, (np.zeros(1, np.float64),), ("y",))
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_folder_without_a_model_is_not_found(tmp_path):
    with pytest.raises(RequestError, match="Could not find SavedModel") as caught:
        load_saved_model(tmp_path, ["serve"], b"")
    assert caught.value.code is Code.NOT_FOUND


def test_tags_that_no_graph_has_are_named(zoo):
    with pytest.raises(RequestError, match=r"matching supplied tags: \{ train \}") as caught:
        load_saved_model(zoo / "half_plus_two" / "1", ["train"], b"")
    assert caught.value.code is Code.NOT_FOUND


def test_a_graph_of_tensorflow_1_runs_with_its_variables_and_tables(tmp_path):
    servable = Servable("m", 1, save_without_functions(tmp_path / "1"), ServableOptions())
    signature = servable.signature("")
    label, y = servable.run_alone(signature, (np.array([[1.0, 2.0], [9.0, 9.0]], np.float32),), ("label", "y"))
    assert label.tolist() == [b"small", b"large"] and y.tolist() == [[5.0], [27.0]]
    servable.close()


def test_the_rows_of_calls_that_run_together_come_back_without_the_padding(half_plus_two):
    signature = half_plus_two.signature("")
    calls = [(np.array([2.0], np.float32),), (np.array([4.0, 6.0], np.float32),)]
    (y,) = half_plus_two.run_batched(signature, calls, padding=5)
    assert y.tolist() == [3.0, 4.0, 5.0]


@pytest.mark.parametrize(("units", "filters", "dense"), [(64, 2, True), (2, 64, False)])
def test_a_graph_whose_weights_are_mostly_matrices_is_known(tmp_path, units, filters, dense):
    import tensorflow as tf

    module = tf.Module()
    module.kernel = tf.Variable(tf.zeros((3, 3, 3, filters)))
    module.matrix = tf.Variable(tf.zeros((8, units)))
    vector = tf.TensorSpec([None, 8], tf.float32, name="x")
    call = tf.function(lambda x: {"y": tf.matmul(x, module.matrix) + tf.reduce_sum(module.kernel)})
    tf.saved_model.save(module, str(tmp_path / "1"), signatures=call.get_concrete_function(vector))
    assert is_mostly_dense(read_meta_graph(tmp_path / "1", ["serve"])) is dense


def test_a_file_that_is_no_saved_model_has_no_graph(tmp_path, zoo):
    assert read_meta_graph(tmp_path, ["serve"]) is None
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff")
    assert read_meta_graph(tmp_path, ["serve"]) is None
    assert read_meta_graph(zoo / "zoo" / "1", ["train"]) is None


def test_a_saved_model_as_text_has_its_signatures_too(zoo, tmp_path):
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    shutil.copytree(zoo / "half_plus_two" / "1", tmp_path / "1")
    binary = tmp_path / "1" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(binary.read_bytes())
    binary.with_suffix(".pbtxt").write_text(text_format.MessageToString(saved))
    binary.unlink()
    servable = Servable("m", 1, tmp_path / "1", ServableOptions())
    (y,) = servable.run_alone(servable.signature(""), (np.array([2.0], np.float32),), ("y",))
    servable.close()
    assert y.tolist() == [3.0] and "regress_x_to_y" in servable.signatures
