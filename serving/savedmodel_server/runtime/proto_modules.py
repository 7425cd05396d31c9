"""The protobuf modules of TensorFlow and of TensorFlow Serving, imported without running `tensorflow/__init__.py`.

`tensorflow.core.*_pb2` need nothing but protobuf, but their import runs their package's `__init__`, which takes 2.5 s.
Here an empty package of the same folder stands in for it while they are imported. What is imported stays in
`sys.modules` under its own name, where every later import of it looks first; the empty package does not stay.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from serving.savedmodel_server.runtime.c_api import package_folder

MODULES = (
    "tensorflow.core.example.example_pb2",
    "tensorflow.core.example.feature_pb2",
    "tensorflow.core.framework.graph_pb2",
    "tensorflow.core.framework.tensor_pb2",
    "tensorflow.core.protobuf.config_pb2",
    "tensorflow.core.protobuf.meta_graph_pb2",
    "tensorflow.core.protobuf.rewriter_config_pb2",
    "tensorflow.core.protobuf.saved_model_pb2",
    "tensorflow_serving.apis.classification_pb2",
    "tensorflow_serving.apis.get_model_metadata_pb2",
    "tensorflow_serving.apis.get_model_status_pb2",
    "tensorflow_serving.apis.inference_pb2",
    "tensorflow_serving.apis.model_management_pb2",
    "tensorflow_serving.apis.predict_pb2",
    "tensorflow_serving.apis.prediction_log_pb2",
    "tensorflow_serving.apis.regression_pb2",
    "tensorflow_serving.config.model_server_config_pb2",
)
"""All that the server imports of the two packages."""


def import_proto_modules() -> None:
    """Import MODULES; without effect on the package tensorflow where it is imported already.

    Raises ModuleNotFoundError where a package is missing.
    """
    with _package_without_init("tensorflow"):
        for name in MODULES:
            importlib.import_module(name)


@contextmanager
def _package_without_init(name: str) -> Iterator[None]:
    if name in sys.modules:
        yield
        return
    empty = ModuleType(name)
    empty.__path__ = [str(package_folder())]
    sys.modules[name] = empty
    try:
        yield
    finally:
        del sys.modules[name]
