"""The `tfserving` engine: the real `tensorflow_model_server` where it is installed.

It listens on every interface, over both protocols: TensorFlow Serving has no flag for an address.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from models.manifest import ModelDir
from serving.deployment import Batching, Budget, ContainerLaunch, Endpoint, Launch
from serving.engines import tensorflow_flags, tensorflow_settings
from serving.errors import EngineUnavailable
from serving.server_settings import OrderedSettings, RunningServer, ServerSettings

PROGRAM = "tensorflow_model_server"
_VERSION_TIMEOUT_S = 20.0


class TfServingEngine:
    """Runs the `tensorflow_model_server` that is on the PATH."""

    name = "tfserving"
    artifact = "savedmodel"
    image = "tensorflow/serving:2.19.1"

    def check(self) -> str:
        """Version of the program; see Engine."""
        program = _program()
        try:
            output = subprocess.run(
                [program, "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT_S, check=True
            ).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise EngineUnavailable(f"{program} does not run ({error}): reinstall TensorFlow Serving.") from error
        match = re.search(r"TensorFlow ModelServer: *(\S+)", output)
        return f"TensorFlow Serving {match[1] if match else 'of an unknown version'}"

    def launch(
        self,
        model: ModelDir,
        replica: int,
        budget: Budget,
        batching: Batching,
        workdir: Path,
        port: int | None,
    ) -> Launch:
        """Command of one replica; see Engine."""
        return tensorflow_flags.launch([_program()], {}, model, replica, budget, batching, workdir, port)

    def contain(self, model: ModelDir, budget: Budget, batching: Batching, config: Path) -> ContainerLaunch:
        """Container of TensorFlow Serving's own image; see Engine."""
        return tensorflow_flags.contain(model, budget, batching, config)

    def ready(self, endpoint: Endpoint, model: ModelDir) -> bool:
        """True once the model is AVAILABLE; see Engine."""
        return tensorflow_flags.ready(endpoint, model)

    def ordered(self, budget: Budget, batching: Batching) -> OrderedSettings:
        """What its flags say; see Engine."""
        return tensorflow_settings.ordered(budget, batching)

    def settings(self, server: RunningServer, model: ModelDir) -> ServerSettings:
        """What its command line and the files on it say; see Engine."""
        return tensorflow_settings.settings(server, model)


def _program() -> str:
    if program := shutil.which(PROGRAM):
        return program
    raise EngineUnavailable(
        f"{PROGRAM} is not on the PATH: install TensorFlow Serving, or choose engine savedmodel, "
        "which speaks the same API."
    )
