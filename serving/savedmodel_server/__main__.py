"""`savedmodel-server`: exit codes are 0 fine, 2 usage, 3 environment, 70 a bug of ours, 130 interrupted."""

from __future__ import annotations

import logging
import os
import signal
import sys

from serving import extras
from serving.descriptors import allow_descriptors
from serving.interrupts import leave_on_interrupt
from serving.savedmodel_server.errors import FlagError, RequestError, StartError
from serving.savedmodel_server.flags import parse_flags


def main(argv: list[str] | None = None) -> int:
    """Run the server; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if argv is None:  # until the server listens itself
        leave_on_interrupt("savedmodel-server", {signal.SIGTERM: 0})
    try:
        if "--version" in arguments:
            return _print_versions()
        flags = parse_flags(arguments)
        allow_descriptors()  # one a connection, and shells often start programs with 1,024
        _prepare_libraries()
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s level=%(levelname)s %(message)s")
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        from serving.savedmodel_server.lifecycle import Server

        return Server(flags).run()
    except FlagError as error:
        print(f"savedmodel-server: {error}", file=sys.stderr)
        return 2
    except (StartError, RequestError) as error:
        print(f"savedmodel-server: {error}", file=sys.stderr)
        return 3
    except ModuleNotFoundError as error:
        if (sentence := extras.explain(error, "it", "savedmodel")) is None:
            raise
        print(f"savedmodel-server: {sentence}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130


def _prepare_libraries() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors alone
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from serving.savedmodel_server.runtime.proto_modules import import_proto_modules

    import_proto_modules()


def _print_versions() -> int:
    from importlib.metadata import version

    print(f"savedmodel-server {version('servestorm')}, TensorFlow {_tensorflow_version()}")
    return 0


def _tensorflow_version() -> str:
    """Of the package that is installed: tensorflow-cpu is TensorFlow without the code for GPUs."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tensorflow")
    except PackageNotFoundError:
        return version("tensorflow-cpu")


if __name__ == "__main__":
    sys.exit(main())
