"""TensorFlow's C API, out of the shared libraries of the installed wheel, without `import tensorflow`.

The Python package takes 2.5 s and 350 MiB to import; the library below it opens in 0.3 s. What the server needs is in
the C API (tensorflow/c/c_api.h and tf_tensor.h of the wheel's headers).

Functions that may take long release the interpreter (`CDLL`); those of a microsecond keep it (`PyDLL`), since each
release lets another thread in.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_cc.2.dylib")
"""Of Linux and of macOS; each loads libtensorflow_framework beside it."""


class Output(ctypes.Structure):
    """TF_Output: one output of an operation of a graph."""

    _fields_ = (("operation", c_void_p), ("index", c_int))


class Buffer(ctypes.Structure):
    """TF_Buffer: bytes that one side hands to the other."""

    _fields_ = (("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p))


DEALLOCATOR = ctypes.CFUNCTYPE(None, c_void_p, c_size_t, c_void_p)
"""Ends the memory of a tensor: its address, its size in bytes and an argument of the owner."""

_BLOCKING: dict[str, tuple[Any, list[Any]]] = {
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, c_void_p, c_void_p],
    ),
    "TF_SessionRun": (
        None,
        [
            *(c_void_p, c_void_p),
            *(POINTER(Output), POINTER(c_void_p), c_int),
            *(POINTER(Output), POINTER(c_void_p), c_int),
            *(POINTER(c_void_p), c_int),
            *(c_void_p, c_void_p),
        ],
    ),
    "TF_NewSession": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "TF_GraphImportGraphDef": (None, [c_void_p, c_void_p, c_void_p, c_void_p]),
    "TF_CloseSession": (None, [c_void_p, c_void_p]),
    "TF_DeleteSession": (None, [c_void_p, c_void_p]),
    "TF_DeleteGraph": (None, [c_void_p]),
}
_QUICK: dict[str, tuple[Any, list[Any]]] = {
    "TF_NewStatus": (c_void_p, []),
    "TF_DeleteStatus": (None, [c_void_p]),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_NewBuffer": (POINTER(Buffer), []),
    "TF_NewBufferFromString": (POINTER(Buffer), [c_char_p, c_size_t]),
    "TF_DeleteBuffer": (None, [c_void_p]),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_SetConfig": (None, [c_void_p, c_char_p, c_size_t, c_void_p]),
    "TF_DeleteSessionOptions": (None, [c_void_p]),
    "TF_NewGraph": (c_void_p, []),
    "TF_GraphOperationByName": (c_void_p, [c_void_p, c_char_p]),
    "TF_OperationNumOutputs": (c_int, [c_void_p]),
    "TF_NewImportGraphDefOptions": (c_void_p, []),
    "TF_DeleteImportGraphDefOptions": (None, [c_void_p]),
    "TF_AllocateTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_size_t]),
    "TF_NewTensor": (
        c_void_p,
        [c_int, POINTER(c_int64), c_int, c_void_p, c_size_t, DEALLOCATOR, c_void_p],
    ),
    "TF_DeleteTensor": (None, [c_void_p]),
    "TF_TensorType": (c_int, [c_void_p]),
    "TF_NumDims": (c_int, [c_void_p]),
    "TF_Dim": (c_int64, [c_void_p, c_int]),
    "TF_TensorByteSize": (c_size_t, [c_void_p]),
    "TF_TensorData": (c_void_p, [c_void_p]),
    "TF_StringInit": (None, [c_void_p]),
    "TF_StringCopy": (None, [c_void_p, c_char_p, c_size_t]),
    "TF_StringDealloc": (None, [c_void_p]),
    "TF_StringGetDataPointer": (c_void_p, [c_void_p]),
    "TF_StringGetSize": (c_size_t, [c_void_p]),
}


class CApi:
    """The functions of the C API by their names."""

    def __init__(self, path: Path) -> None:
        """Open the library at `path`; raises OSError where it cannot be loaded."""
        handle = _open_lazily(path)
        blocking, quick = ctypes.CDLL(str(path), handle=handle), ctypes.PyDLL(str(path), handle=handle)
        for library, functions in ((blocking, _BLOCKING), (quick, _QUICK)):
            for name, (result, arguments) in functions.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:  # for the type checker: all there is is set above
        raise AttributeError(name)


def _open_lazily(path: Path) -> int:
    """A handle of the library, whose 200,000 symbols are looked up as they are used: a third less to open.

    ctypes itself looks all of them up at once. Raises OSError.
    """
    system = ctypes.CDLL(None)
    system.dlopen.restype, system.dlopen.argtypes = c_void_p, [c_char_p, c_int]
    system.dlerror.restype = c_char_p
    handle: int | None = system.dlopen(bytes(path), os.RTLD_LAZY | os.RTLD_LOCAL)
    if handle is None:
        raise OSError((system.dlerror() or b"").decode("utf-8", "replace"))
    return handle


def give_memory_back() -> None:
    """Return freed memory that the C library keeps to the system: a load leaves copies of its graph."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def package_folder() -> Path:
    """Where the package tensorflow lies, found without its import; raises ModuleNotFoundError."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def c_api() -> CApi:
    """The C API of the installed TensorFlow, opened once a process; raises ModuleNotFoundError or OSError."""
    folder = package_folder()
    for name in LIBRARIES:
        if (folder / name).exists():
            return CApi(folder / name)
    raise OSError(f"{folder} holds none of {', '.join(LIBRARIES)}.")
