"""What pyproject.toml cannot say: the wheel carries the Helm chart, which lies outside every package."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CHART = Path("deploy/k8s/servestorm")
PACKAGED = Path("serving/backends/kubernetes/chart")
"""Where `serving.backends.kubernetes.helm.chart_folder` looks for it."""


class WithChart(build_py):
    """Copies the chart beside the backend that installs it; an editable install finds the chart itself."""

    def run(self) -> None:
        """Copy the packages, then the chart into them."""
        super().run()
        if CHART.is_dir() and not self.editable_mode:
            target = Path(self.build_lib) / PACKAGED
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(CHART, target, ignore=shutil.ignore_patterns("ci"))


setup(cmdclass={"build_py": WithChart})
