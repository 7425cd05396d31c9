"""What images are made from: exact package lists, one configuration of TorchServe, Dockerfiles for every builder."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from models.manifest import ModelDir
from servestorm import __version__
from serving.deployment import Batching, Budget
from serving.engines.torchserve import TorchServeEngine
from tests.source_tree import ROOT
from tests.stand_ins.toy_model_dir import toy_model

IMAGES = ROOT / "serving" / "images"
LISTS = IMAGES / "requirements"
DOCKERFILES = sorted(IMAGES.glob("*/Dockerfile*"))

# distribution -> what it declares and a server never imports (each was left out of an image that then answered right)
NOT_NEEDED = {
    "tensorflow": {"libclang", "setuptools"},
    "tensorflow-serving-api": {"tensorflow"},
    "astunparse": {"wheel"},
    "torch": {"setuptools"},
    "torchserve": {"wheel"},
    "locust": {"pytest"},
}
TOGETHER = {
    "savedmodel": ["savedmodel"],
    "torchserve": ["torchserve"],
    "generator": ["generator"],
    "trainer": ["savedmodel", "torchserve", "trainer"],
}


def listed(*names: str) -> dict[str, Requirement]:
    """Packages of these lists by canonical name."""
    lines = [line for name in names for line in (LISTS / f"{name}.in").read_text().splitlines()]
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in wanted}


def locked() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("name", ["savedmodel", "torchserve", "generator", "trainer"])
def test_every_package_of_an_image_is_pinned_by_the_lock(name):
    packages = listed(name)
    if name == "savedmodel":
        assert str(packages.pop("tensorflow-cpu").specifier) == f"=={locked()['tensorflow']}"
    assert set(packages) <= set(locked())
    assert not [str(requirement) for requirement in packages.values() if requirement.specifier]


def test_an_image_with_torch_installs_it_from_its_own_list():
    for path in DOCKERFILES:
        asked = re.search(r"^RUN .*install.sh .*\btorchserve.txt.*", path.read_text(), re.MULTILINE)
        assert asked is None or asked[0] == "RUN sh /build/install.sh torchserve.txt torch.txt", path


@pytest.mark.parametrize("image", TOGETHER)
def test_an_images_lists_name_every_dependency(image):
    names = set(listed(*TOGETHER[image])) | ({"torch"} if "torchserve" in TOGETHER[image] else set())
    installed = {"tensorflow" if name == "tensorflow-cpu" else name for name in names}
    missing = {}
    for name in installed:
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            needed = canonicalize_name(requirement.name)
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            if needed not in installed and needed not in NOT_NEEDED.get(name, set()):
                missing[needed] = name
    assert missing == {}


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> Path:
    """The folder where the process backend puts TorchServe's configuration."""
    workdir = tmp_path_factory.mktemp("torchserve")
    model: ModelDir = toy_model(tmp_path_factory.mktemp("model"))
    TorchServeEngine().launch(model, 0, Budget(cpus=(0,)), Batching(), workdir, None)
    return workdir


def test_torchserve_logs_in_its_image_what_it_logs_as_a_process(launched):
    assert (IMAGES / "torchserve" / "log4j2.xml").read_text() == (launched / "log4j2.xml").read_text()


def test_torchserve_tells_the_same_metrics_in_its_image_as_a_process(launched):
    image = yaml.safe_load((IMAGES / "torchserve" / "metrics.yaml").read_text())
    assert image == yaml.safe_load((launched / "metrics.yaml").read_text())


def settings(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="latin-1").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_torchserve_is_set_up_in_its_image_as_in_a_study(launched):
    image, study = settings(IMAGES / "torchserve" / "config.properties"), settings(launched / "config.properties")
    places = {key for key in image if "address" in key or key.endswith("_port")}
    places |= {"metrics_config", "workflow_store"}
    # The entry point names the model; the JVM's processors decide the number of threads.
    decided_later = {"model_store", "model_snapshot", "number_of_netty_threads", "netty_client_threads"}
    assert set(study) - decided_later <= set(image)
    differing = {key for key in image.keys() & study.keys() if image[key] != study[key]}
    assert differing <= places
    # A study's snapshot holds the number of workers; the image alone gives one unless the archive says otherwise.
    assert set(image) - set(study) == {"enable_model_api", "default_workers_per_model"}
    assert image["default_workers_per_model"] == "1"
    assert image["enable_model_api"] == "false"


def stages(dockerfile: Path) -> dict[str, str]:
    """Text of each named stage, and of the last one as ''."""
    found = {}
    for block in re.split(r"^(?=FROM )", dockerfile.read_text(), flags=re.MULTILINE)[1:]:
        name = re.match(r"FROM \S+ AS (\w+)", block)
        found[name[1] if name else ""] = "\n".join(
            line for line in block.splitlines() if line and not line.startswith("#")
        )
    return found


@pytest.mark.parametrize(
    ("stage", "first", "others"),
    [
        ("tensorflow", "savedmodel", ["trainer"]),
        ("torch", "torchserve", ["trainer"]),
        ("own", "savedmodel", ["generator", "trainer"]),
    ],
)
def test_a_stage_that_images_share_is_written_alike_so_that_it_is_built_once(stage, first, others):
    text = stages(IMAGES / first / "Dockerfile")[stage]
    assert [stages(IMAGES / other / "Dockerfile")[stage] for other in others] == [text] * len(others)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_dockerfile_needs_neither_buildkit_nor_the_classic_builder(dockerfile):
    text = dockerfile.read_text()
    assert not re.search(r"--mount|--link|<<-?\w|^# *syntax", text, re.MULTILINE)
    assert "ADD http" not in text


@pytest.mark.parametrize(
    "dockerfile", [path for path in DOCKERFILES if path.parent.name != "wheelhouse"], ids=lambda path: path.parent.name
)
def test_an_image_runs_as_user_10001_and_carries_this_version_and_oci_labels(dockerfile):
    last = stages(dockerfile)[""]
    assert re.findall(r"^USER (\S+)", last, re.MULTILINE)[-1] == "10001:10001"
    assert f"ARG VERSION={__version__}" in last
    for label in ("title", "description", "version", "revision", "licenses", "base.name"):
        assert f"org.opencontainers.image.{label}=" in last


def test_a_base_image_is_pinned_by_a_tag_and_never_latest():
    bases = {
        base
        for path in DOCKERFILES
        for base in re.findall(r"^ARG (?:BASE|BUILDER|UPSTREAM)=(\S+)", path.read_text(), re.M)
    }
    assert bases
    for base in bases:
        assert ":" in base and not base.endswith(":latest"), base


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_public_base_has_a_digest_or_the_file_says_how_to_give_one(dockerfile):
    text = dockerfile.read_text()
    for base in re.findall(r"^ARG (?:BASE|UPSTREAM)=(\S+)", text, re.MULTILINE):
        if not base.startswith("servestorm/"):
            assert re.search(r"@sha256:[0-9a-f]{64}$", base) or "make pin-digests" in text, base
