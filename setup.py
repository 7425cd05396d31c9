"""What pyproject.toml cannot say: the wheel carries the Helm chart and the plans, which lie outside every package."""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PACKAGED = {
    Path("deploy/k8s/servestorm"): Path("serving/backends/kubernetes/chart"),
    Path("studies"): Path("servestorm/plan/studies"),
}
"""Folder of the checkout to its place in the wheel, where `serving.backends.kubernetes.helm.chart_folder` and
`servestorm.plan.bundled_plans.plans_folder` look for it."""


class WithFolders(build_py):
    """Copies the folders into the packages that read them; an editable install reads those of the checkout."""

    def run(self) -> None:
        """Copy the packages, then the folders into them."""
        super().run()
        for folder, place in PACKAGED.items() if not self.editable_mode else ():
            if folder.is_dir():
                target = Path(self.build_lib) / place
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(folder, target, ignore=shutil.ignore_patterns("ci"))


setup(cmdclass={"build_py": WithFolders})
