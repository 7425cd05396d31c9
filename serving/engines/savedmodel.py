"""The `savedmodel` engine: our embedded server, which speaks TensorFlow Serving's API."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from models.manifest import ModelDir
from serving import extras
from serving.containers import image
from serving.deployment import Batching, Budget, ContainerLaunch, Endpoint, Launch
from serving.engines import tensorflow_flags, tensorflow_settings
from serving.errors import EngineUnavailable
from serving.server_settings import OrderedSettings, RunningServer, ServerSettings


class SavedModelEngine:
    """Runs `savedmodel-server` in this very Python."""

    name = "savedmodel"
    artifact = "savedmodel"

    @property
    def image(self) -> str:
        """Our own; see Engine."""
        return image(self.name)

    def check(self) -> str:
        """TensorFlow's version, which does the work; see Engine."""
        extras.require(self.name, f"engine {self.name}")
        for library in ("tensorflow", "tensorflow-cpu"):
            try:
                return f"TensorFlow {importlib.metadata.version(library)}"
            except importlib.metadata.PackageNotFoundError:
                continue
        raise EngineUnavailable(extras.sentence(self.name, f"engine {self.name}", ["tensorflow"]))

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
        # -P: a folder named like one of our packages in the working directory must not be imported.
        program = [sys.executable, "-P", "-m", "serving.savedmodel_server"]
        env = {"PYTHONUNBUFFERED": "1"}  # its output before a crash must reach the log
        return tensorflow_flags.launch(program, env, model, replica, budget, batching, workdir, port)

    def contain(self, model: ModelDir, budget: Budget, batching: Batching, config: Path) -> ContainerLaunch:
        """Container of our image; see Engine."""
        # outside a container it listens on the loopback interface only, unlike TensorFlow Serving
        everywhere = ["--bind_address=0.0.0.0"]
        return tensorflow_flags.contain(model, budget, batching, config, everywhere)

    def ready(self, endpoint: Endpoint, model: ModelDir) -> bool:
        """True once the model is AVAILABLE; see Engine."""
        return tensorflow_flags.ready(endpoint, model)

    def ordered(self, budget: Budget, batching: Batching) -> OrderedSettings:
        """What its flags say; see Engine."""
        return tensorflow_settings.ordered(budget, batching)

    def settings(self, server: RunningServer, model: ModelDir) -> ServerSettings:
        """What its command line and the files on it say; see Engine."""
        return tensorflow_settings.settings(server, model)
