"""Where models come from: images, claims and URLs, whose scripts are run here for real."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.deploy.chart.rendering import CHART, container, render
from tests.deploy.chart.test_downloads import LIMITS

SCRIPTS = CHART / "files"
CI = CHART / "ci"


def unpack(tmp_path: Path, file: Path, sha256: str, filename: str, name: str = "toy"):
    (tmp_path / "target").mkdir(exist_ok=True)
    return subprocess.run(
        ["sh", str(SCRIPTS / "unpack.sh"), name, str(file), sha256, filename, str(tmp_path / "target")],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(params=["", "toy/"], ids=["files", "folder"])
def archive(tmp_path, request):
    """A tar of a model, its files at the root or in a folder of its name."""
    (tmp_path / "manifest.json").write_text("{}")
    path = tmp_path / "download"
    with tarfile.open(path, "w:gz") as tar:
        for inside in ("manifest.json", "1/saved_model.pb"):
            tar.add(tmp_path / "manifest.json", request.param + inside)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_archive_is_unpacked_into_the_model_s_folder_and_nothing_else_is_left(tmp_path, archive):
    done = unpack(tmp_path, archive, sha256(archive), "toy-1.tar.gz")
    assert done.returncode == 0, done.stderr
    found = {str(path.relative_to(tmp_path / "target")) for path in (tmp_path / "target").rglob("*")}
    assert found == {"toy", "toy/manifest.json", "toy/1", "toy/1/saved_model.pb"}
    assert not archive.exists()


def test_a_torchserve_archive_is_kept_whole_under_the_model_s_name(tmp_path, archive):
    content = archive.read_bytes()
    assert unpack(tmp_path, archive, sha256(archive), "release-7.mar").returncode == 0
    assert (tmp_path / "target" / "toy" / "toy.mar").read_bytes() == content


def test_a_wrong_checksum_keeps_the_model_out_and_says_which_was_found(tmp_path, archive):
    found = sha256(archive)
    done = unpack(tmp_path, archive, "0" * 64, "toy.tar.gz")
    assert done.returncode == 1
    assert found in done.stderr and "models[].source.url.sha256" in done.stderr
    assert not (tmp_path / "target" / "toy").exists()


def test_what_is_no_archive_is_refused_in_a_sentence(tmp_path):
    page = tmp_path / "download"
    page.write_text("<html>Please log in</html>")
    done = unpack(tmp_path, page, sha256(page), "toy.tar.gz")
    assert done.returncode == 1
    assert "is no tar archive" in done.stderr
    assert not (tmp_path / "target" / "toy").exists()


def test_a_container_that_is_started_again_unpacks_again(tmp_path, archive):
    again = tmp_path / "again"
    again.write_bytes(archive.read_bytes())
    assert unpack(tmp_path, archive, sha256(archive), "toy.tar").returncode == 0
    assert unpack(tmp_path, again, sha256(again), "toy.tar").returncode == 0
    assert (tmp_path / "target" / "toy" / "1" / "saved_model.pb").exists()


def download(url: str, file: Path, path: str):
    return subprocess.run(
        ["/bin/sh", str(SCRIPTS / "download.sh"), url, str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": path, **LIMITS},
    )


@pytest.fixture
def programs(tmp_path):
    """A folder of programs that write down how they were called, and copy nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("aws", "gcloud", "curl"):
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n')
        program.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("url", "call"),
    [
        ("s3://b/toy.tar", "aws s3 cp --only-show-errors --cli-connect-timeout 5 s3://b/toy.tar {file}"),
        ("gs://b/toy.tar", "gcloud storage cp --quiet gs://b/toy.tar {file}"),
        ("https://h/toy.tar", "curl --fail --silent --show-error --proto =http,https --connect-timeout 5 --max-time 60 "
                              "--max-filesize 4096 --output {file} "
                              "--write-out %{{http_code}} %{{remote_ip}} %{{redirect_url}} https://h/toy.tar"),
    ],
)  # fmt: skip
def test_each_scheme_has_its_tool(url, call, programs, tmp_path):
    file = tmp_path / "file"
    assert download(url, file, f"{programs}:/bin").returncode == 0
    assert (tmp_path / "calls").read_text().strip() == call.format(file=file)


def test_a_download_that_fails_is_told_in_a_sentence(programs, tmp_path):
    (programs / "aws").write_text("#!/bin/sh\necho AccessDenied >&2; exit 255\n")
    done = download("s3://b/toy.tar", tmp_path / "file", f"{programs}:/bin")
    assert done.returncode == 1
    assert "AccessDenied" in done.stderr and "s3://b/toy.tar could not be downloaded" in done.stderr


@pytest.mark.helm
def test_an_image_s_model_is_copied_by_an_init_container_and_mounted_read_only():
    pod = render().server()
    copy = container(pod, "model-0")
    assert copy["image"] == "servestorm/models-cnn:0.1.0"
    assert copy["command"] == ["cp", "-R", "/models/.", "/target"]
    assert {"name": "models", "mountPath": "/target"} in copy["volumeMounts"]
    mount = {"name": "models", "mountPath": "/models/cnn", "subPath": "cnn", "readOnly": True}
    assert mount in container(pod, "server")["volumeMounts"]


@pytest.mark.helm
def test_a_claim_is_mounted_where_it_is_and_nothing_is_copied():
    pod = render(
        "models[0].name=cnn", "models[0].source.pvc.claimName=models", "models[0].source.pvc.subPath=a/cnn"
    ).server()
    assert "initContainers" not in pod
    assert not any(volume["name"] == "models" for volume in pod["volumes"])
    mount = {"name": "claim-0", "mountPath": "/models/cnn", "subPath": "a/cnn", "readOnly": True}
    assert mount in container(pod, "server")["volumeMounts"]
    (claim,) = [volume for volume in pod["volumes"] if volume["name"] == "claim-0"]
    assert claim["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}


@pytest.mark.helm
def test_a_url_is_downloaded_by_its_scheme_s_image_and_unpacked_with_the_checksum():
    rendered = render(values=CI / "models-values.yaml")
    pod = rendered.server()
    assert container(pod, "download-2")["image"].startswith("curlimages/curl:")
    assert container(pod, "download-3")["image"].startswith("amazon/aws-cli:")
    assert container(pod, "download-4")["image"].startswith("gcr.io/google.com/cloudsdktool/google-cloud-cli:")
    assert container(pod, "download-3")["envFrom"] == [{"secretRef": {"name": "s3-reader"}}]
    for index, name, filename in (
        (2, "remote", "remote.tar.gz"),
        (3, "bucket", "bucket.tgz"),
        (4, "storage", "storage.tar"),
    ):
        file = container(pod, f"download-{index}")["command"][-1]
        digest = str(index - 1) * 64
        unpacked = container(pod, f"unpack-{index}")["command"]
        assert unpacked == ["sh", "/scripts/unpack.sh", name, file, digest, filename, "/target"]
        assert "envFrom" not in container(pod, f"unpack-{index}")
    order = [each["name"] for each in pod["initContainers"]]
    assert order.index("download-2") < order.index("unpack-2")


@pytest.mark.helm
def test_the_scripts_in_the_cluster_are_those_that_are_tested_here():
    scripts = render(values=CI / "models-values.yaml").get("ConfigMap", "-scripts")["data"]
    assert scripts == {path.name: path.read_text() for path in SCRIPTS.iterdir() if path.suffix in (".sh", ".py")}
    assert not render().has("ConfigMap", "-scripts")
