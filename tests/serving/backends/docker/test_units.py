"""The docker backend without an engine: what containers are started with, what is read of them, what errors say."""

from __future__ import annotations

import io
import json
import os
import tarfile
from types import SimpleNamespace

import pytest
from docker.errors import APIError, BuildError, DockerException, ImageNotFound

from serving import orphans
from serving.backend import counted
from serving.backends.container_use import ContainerUse, total
from serving.backends.docker import engine as docker_engine
from serving.backends.docker import leftovers as docker_leftovers
from serving.backends.docker.bake import _context
from serving.backends.docker.balancer import configuration
from serving.backends.docker.deployment import _open_to_readers, _require_readable
from serving.backends.docker.image_build import build_image
from serving.backends.docker.settings import server_settings
from serving.backends.docker.use import Group, of_statistics
from serving.backends.interrupts import through_interrupts
from serving.deployment import Batching, Budget
from serving.engines import ENGINES
from serving.errors import DeploymentError, EngineUnavailable
from tests.stand_ins.fake_engine import write_model

BUDGET = Budget(cpus=(0, 2), threads=2, memory_bytes=512 * 2**20, cpu_quota=0.25)
GIB = 2**30


def contained(name, tmp_path, budget=BUDGET, batching=None):
    """The engine's container for a toy model, and the folder of its configuration."""
    model = write_model(tmp_path / "toy")
    if name == "torchserve":
        import zipfile

        with zipfile.ZipFile(model.mar_path, "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", '{"model": {"modelVersion": "1.0"}}')
    config = tmp_path / "config"
    config.mkdir()
    return ENGINES[name].contain(model, budget, batching or Batching(), config), config


def settings(launch, **changes):
    return server_settings(
        launch, BUDGET, **{"model": ("toy", launch.config), "published": {}, "init": True, **changes}
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gets_the_same_limits_and_no_rights(engine, tmp_path):
    made = settings(contained(engine, tmp_path)[0])
    assert made["nano_cpus"] == 250_000_000
    assert made["mem_limit"] == made["memswap_limit"] == 512 * 2**20
    assert made["cpuset_cpus"] == "0,2"
    assert made["user"] == "10001:10001" and made["read_only"] and made["cap_drop"] == ["ALL"]
    assert made["security_opt"] == ["no-new-privileges"] and "privileged" not in made
    assert [mount["ReadOnly"] for mount in made["mounts"]] == [True, True]


def test_without_limits_there_is_neither_quota_nor_memory_limit(tmp_path):
    launch, _ = contained("savedmodel", tmp_path)
    made = server_settings(launch, Budget(cpus=(0,)), model=None, published={}, init=True)
    assert not made.keys() & {"nano_cpus", "mem_limit", "memswap_limit"}
    assert [mount["Target"] for mount in made["mounts"]] == ["/config"]


def test_ports_are_published_on_the_loopback_interface_alone(tmp_path):
    made = settings(contained("savedmodel", tmp_path)[0], published={8501: 20001})
    assert made["ports"] == {"8501/tcp": ("127.0.0.1", 20001)}


@pytest.mark.parametrize("engine", ["savedmodel", "tfserving"])
def test_a_contained_tensorflow_server_gets_the_flags_that_a_process_gets(engine, tmp_path):
    launch, config = contained(engine, tmp_path, batching=Batching(max_batch_size=8))
    assert "--tensorflow_intra_op_parallelism=2" in launch.command
    assert "--monitoring_config_file=/config/monitoring.config" in launch.command
    assert "--batching_parameters_file=/config/batching.config" in launch.command
    assert "max_execution_batch_size { value: 8 }" in (config / "batching.config").read_text()
    assert launch.env["MODEL_NAME"] == "toy" and launch.env["MODEL_BASE_PATH"] == "/models"
    assert ("--bind_address=0.0.0.0" in launch.command) == (engine == "savedmodel")


def test_a_contained_torchserve_listens_everywhere_and_finds_its_model_where_it_is_mounted(tmp_path):
    launch, config = contained("torchserve", tmp_path, batching=Batching(max_batch_size=4, timeout_us=2000))
    written = dict(line.split("=", 1) for line in (config / "config.properties").read_text().splitlines())
    assert written["inference_address"] == "http://0.0.0.0:8080" and written["grpc_inference_address"] == "0.0.0.0"
    (settings,) = json.loads(written["model_snapshot"])["models"]["toy"].values()
    assert written["model_store"] == "/models/toy" and settings["marName"] == "toy.mar"
    assert written["metrics_config"] == "/etc/servestorm/metrics.yaml"
    assert settings["batchSize"] == 4 and settings["maxBatchDelay"] == 2
    assert launch.env["TS_CONFIG_FILE"] == "/config/config.properties"
    assert launch.env["JAVA_ACTIVE_PROCESSORS"] == written["number_of_netty_threads"] == "1"  # a quarter of a CPU


def test_an_endpoint_names_each_port_where_it_is_reached(tmp_path):
    launch, _ = contained("torchserve", tmp_path)
    endpoint = launch.endpoint(1, lambda port: f"10.1.2.3:{port + 1}")
    assert endpoint.rest_url == "http://10.1.2.3:8081" and endpoint.grpc_target == "10.1.2.3:7071"
    assert endpoint.metrics_url == "http://10.1.2.3:8083/metrics"
    assert endpoint.management_url == "http://10.1.2.3:8082"
    assert launch.ports() == (8080, 7070, 8082, 8081)


def wrapped(cause: OSError) -> DockerException:
    """As docker's library wraps what the socket says."""
    error = DockerException("Error while fetching server API version")
    error.__cause__ = ConnectionError(ConnectionError("Connection aborted.", cause))
    return error


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (PermissionError(13, "Permission denied"), "may not be used by you: join its group"),
        (FileNotFoundError(2, "No such file"), "no Docker Engine answers at unix:///var/run/docker.sock: install"),
        (ConnectionRefusedError(111, "refused"), "no Docker Engine answers"),
        (TimeoutError("timed out"), "cannot be asked (timed out): check it with `docker info`"),
    ],
)
def test_why_no_engine_answers_is_told_with_the_remedy(cause, told, monkeypatch):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert told in docker_engine.unreachable(wrapped(cause))


def test_an_engine_that_is_not_there_is_unavailable(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(EngineUnavailable, match=r"no Docker Engine answers at unix:///.*nobody\.sock"):
        docker_engine.connect()


def test_an_engine_that_is_too_old_is_refused():
    docker_engine.require_new_enough({"Version": "20.10.0", "ApiVersion": "1.41"})
    with pytest.raises(EngineUnavailable, match=r"Docker Engine 19\.03\.9 \(API 1\.40\) is too old: install 20\.10"):
        docker_engine.require_new_enough({"Version": "19.03.9", "ApiVersion": "1.40"})


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("driver failed: Bind for 127.0.0.1:80 failed: port is already allocated", "the port was taken meanwhile"),
        ("write /var/lib/docker/x: no space left on device", "the disk is full: free some space"),
        ("could not find an available, non-overlapping IPv4 address pool", "docker network prune"),
        ("Requested CPUs are not available - requested 7, available: 0-1", "the CPU set names a core"),
        ("something\nnew.", "Docker cannot start it: something new."),
    ],
)
def test_what_docker_refuses_is_one_sentence_with_the_remedy(said, told):
    with pytest.raises(DeploymentError) as caught, docker_engine.asking("start it"):
        raise APIError("500", explanation=said)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def client_without_images(pull_says: str):
    def absent(_reference):
        raise ImageNotFound("no such image")

    def pull(_reference):
        raise APIError("500", explanation=pull_says)

    return SimpleNamespace(images=SimpleNamespace(get=absent, pull=pull))


def test_an_image_of_ours_is_made_and_not_looked_for_in_a_registry():
    with pytest.raises(EngineUnavailable, match="servestorm/torchserve:9 is not here: make it with `make airgap"):
        docker_engine.require_image(client_without_images("asked a registry"), "servestorm/torchserve:9")


def test_an_image_that_cannot_be_pulled_is_told_with_the_registrys_words():
    with pytest.raises(EngineUnavailable, match=r"cannot be pulled \(no route to host\): bring it with `docker save`"):
        docker_engine.require_image(client_without_images("no route to host"), "tensorflow/serving:2.19.1")


def client_that_builds(*answers):
    """A client whose builds end like `answers` in turn, and the list of what each build was given."""
    asked = []

    def build(fileobj, **options):
        asked.append((fileobj.read(), options))
        answer = answers[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer, []

    return SimpleNamespace(images=SimpleNamespace(build=build)), asked


GONE = "failed to export image: failed to set parent sha256:aa: unknown parent image ID sha256:aa"


def test_a_build_whose_cached_layer_was_removed_meanwhile_is_done_again_without_the_cache():
    client, asked = client_that_builds(BuildError(GONE, []), "image")
    assert build_image(client, io.BytesIO(b"tar"), "build it", "mine:1", labels={"a": "b"}) == "image"
    assert [stream for stream, _ in asked] == [b"tar", b"tar"]
    assert [options.get("nocache", False) for _, options in asked] == [False, True]
    assert all(options["labels"] == {"a": "b"} and options["tag"] == "mine:1" for _, options in asked)


@pytest.mark.parametrize(
    ("answers", "builds", "told"),
    [
        ([BuildError("COPY failed: no such file", [])], 1, "Docker cannot build it: COPY failed: no such file."),
        ([BuildError(GONE, []), BuildError(GONE, [])], 2, "Docker cannot build it: failed to export image: "),
        ([APIError("500", explanation="no space left on device")], 1, "Docker cannot build it, because the disk is"),
        ([DockerException("gone")], 1, "the Docker Engine stopped answering when it was to build it (gone)"),
    ],
)
def test_a_build_that_docker_refuses_is_one_sentence(answers, builds, told):
    client, asked = client_that_builds(*answers)
    with pytest.raises(DeploymentError) as caught:
        build_image(client, io.BytesIO(b"tar"), "build it", "mine:1")
    assert str(caught.value).startswith(told) and len(asked) == builds


def test_use_is_read_from_the_statistics_of_version_1():
    found = of_statistics(
        {
            "cpu_stats": {
                "cpu_usage": {"total_usage": 2_500_000_000},
                "throttling_data": {"throttled_time": 1_500_000_000},
            },
            "memory_stats": {
                "usage": 3 * GIB,
                "max_usage": 4 * GIB,
                "stats": {"inactive_file": 5, "total_inactive_file": GIB, "swap": 7},
            },
            "blkio_stats": {
                "io_service_bytes_recursive": [
                    {"major": 8, "op": "Read", "value": 10},
                    {"major": 9, "op": "Read", "value": 20},
                    {"major": 8, "op": "Write", "value": 40},
                    {"major": 8, "op": "Total", "value": 50},
                ]
            },
            "networks": {"eth0": {"rx_bytes": 100, "tx_bytes": 200}, "eth1": {"rx_bytes": 1, "tx_bytes": 2}},
            "pids_stats": {"current": 9},
        }
    )
    assert (found.cpu_s, found.throttled_s) == (2.5, 1.5)
    assert (found.memory_bytes, found.memory_peak_bytes, found.rss_bytes) == (3 * GIB, 4 * GIB, 2 * GIB)
    assert (found.disk_read_bytes, found.disk_written_bytes) == (30, 40)
    assert (found.network_received_bytes, found.network_sent_bytes) == (101, 202)
    assert (found.swap_bytes, found.pids) == (7, 9)


def test_use_is_read_from_the_statistics_of_version_2():
    found = of_statistics(
        {
            "cpu_stats": {"cpu_usage": {"total_usage": 10**9}, "throttling_data": {"throttled_time": 0}},
            "memory_stats": {"usage": 3 * GIB, "stats": {"anon": 5, "inactive_file": GIB}},
            "blkio_stats": {"io_service_bytes_recursive": [{"op": "write", "value": 4096}]},
        }
    )
    assert (found.cpu_s, found.throttled_s, found.rss_bytes) == (1.0, 0.0, 2 * GIB)
    assert found.memory_peak_bytes is None and found.network_sent_bytes is None and found.pids is None
    assert (found.disk_read_bytes, found.disk_written_bytes) == (0, 4096)


def test_a_container_that_has_ended_uses_nothing_that_is_known():
    ended = {"cpu_stats": {"cpu_usage": {}}, "memory_stats": {}, "blkio_stats": {"io_service_bytes_recursive": None}}
    found = of_statistics(ended)
    assert found.cpu_s is None and found.memory_bytes is None and found.rss_bytes is None


@pytest.mark.parametrize(
    ("cgroup", "folder", "files", "kills"),
    [
        ("0::/docker/abc\n", "docker/abc", {"memory.peak": "77\n", "memory.events": "oom 2\noom_kill 1\n"}, 1),
        (
            "4:memory:/docker/abc\n0::/\n",
            "memory/docker/abc",
            {"memory.peak": "77\n", "memory.oom_control": "under_oom 0\noom_kill 3\n"},
            3,
        ),
    ],
)
def test_the_kernels_own_files_tell_of_members_peaks_and_kills(tmp_path, cgroup, folder, files, kills):
    (tmp_path / "proc" / "7").mkdir(parents=True)
    (tmp_path / "proc" / "7" / "cgroup").write_text(cgroup)
    place = tmp_path / "sys" / folder
    place.mkdir(parents=True)
    for name, text in {**files, "cgroup.procs": f"{os.getpid()}\n"}.items():
        (place / name).write_text(text)
    group = Group.of(7, "abc", tmp_path / "sys", tmp_path / "proc")
    assert [member.pid for member in group.members()] == [os.getpid()]
    assert group.number("memory.peak") == 77 and group.number("memory.nothing") is None
    assert group.out_of_memory() == kills
    assert Group.of(7, "another", tmp_path / "sys", tmp_path / "proc") is None  # the pid is of something else here
    assert Group.of(8, "abc", tmp_path / "sys", tmp_path / "proc") is None


@pytest.mark.parametrize(
    ("cgroup", "folder", "file", "text"),
    [
        ("3:cpuacct:/docker/abc\n0::/\n", "cpuacct/docker/abc", "cpuacct.usage", "2500000000\n"),
        ("0::/docker/abc\n", "docker/abc", "cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
    ],
)
def test_cpu_time_is_the_kernels_own_where_the_container_runs_on_it(tmp_path, cgroup, folder, file, text):
    (tmp_path / "proc" / "7").mkdir(parents=True)
    (tmp_path / "proc" / "7" / "cgroup").write_text(cgroup)
    place = tmp_path / "sys" / folder
    place.mkdir(parents=True)
    group = Group.of(7, "abc", tmp_path / "sys", tmp_path / "proc")
    assert group.cpu_s() is None
    (place / file).write_text(text)
    assert group.cpu_s() == 2.5


def test_replicas_add_up_but_their_throttling_which_passes_side_by_side_is_a_mean():
    found = total([ContainerUse(cpu_s=1.0, throttled_s=4.0, pids=3), ContainerUse(cpu_s=2.0, throttled_s=1.0)])
    assert (found.cpu_s, found.throttled_s, found.pids, found.swap_bytes) == (3.0, 2.5, 3, None)
    assert total([]).throttled_s is None


def test_the_balancer_gives_each_request_to_the_replica_with_the_fewest_under_way():
    text = configuration(8501, ["10.0.0.2:8501", "10.0.0.3:8501"], 8500, ["10.0.0.2:8500", "10.0.0.3:8500"], 2)
    rest, grpc = text.split("backend rest\n")[-1].split("backend grpc\n")
    assert "balance leastconn" in rest and "balance leastconn" in grpc
    assert "server replica1 10.0.0.3:8501\n" in rest
    assert "server replica1 10.0.0.3:8500 proto h2\n" in grpc
    assert "bind :8500 proto h2" in text and "nbthread 2" in text
    assert "retries 0" in text and "check" not in text  # a request that fails must count


def test_a_baked_image_holds_the_manifest_and_the_one_artifact_readable_by_everybody(tmp_path):
    model = write_model(tmp_path / "toy")
    (model.path / "1" / "saved_model.pb").chmod(0o600)
    with tarfile.open(fileobj=io.BytesIO(_context("base:1", ENGINES["savedmodel"], model))) as archive:
        entries = {entry.name: entry for entry in archive}
        text = archive.extractfile("Dockerfile").read().decode()
    assert text == "FROM base:1\nCOPY model/ /models/toy/\n"
    assert sorted(entries) == ["Dockerfile", "model/1", "model/1/saved_model.pb", "model/manifest.json"]
    assert entries["model/1/saved_model.pb"].mode == 0o644 and entries["model/1"].mode == 0o755


def test_configuration_can_be_read_by_the_containers_user(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o600)
    _open_to_readers(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755 and (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_model_that_the_containers_user_cannot_read_is_told_before_anything_starts(tmp_path):
    model = write_model(tmp_path / "toy")
    _require_readable(model, ENGINES["savedmodel"])
    (model.path / "1" / "saved_model.pb").chmod(0o640)
    with pytest.raises(
        DeploymentError, match=r"saved_model\.pb cannot be read by the user of the containers: run `chmod"
    ):
        _require_readable(model, ENGINES["savedmodel"])
    _require_readable(model, ENGINES["torchserve"])  # which does not need that file


def test_every_step_of_the_teardown_is_carried_out_through_ctrl_c():
    done, interrupts = [], [KeyboardInterrupt, KeyboardInterrupt]

    def first():
        if interrupts:
            raise interrupts.pop()
        done.append("first")

    with pytest.raises(KeyboardInterrupt):
        through_interrupts(first, lambda: done.append("second"))
    assert done == ["first", "second"]


def labelled(**labels):
    return SimpleNamespace(name="x", attrs={"Config": {"Labels": labels}})


def engine_with(*containers):
    """A client whose engine holds these, and hands out those with a wanted label."""

    def listed(filters, **_):
        key, _, value = filters["label"].partition("=")
        return [one for one in containers if one.attrs["Config"]["Labels"].get(key) == value]

    nothing = SimpleNamespace(list=lambda **_: [])
    return SimpleNamespace(containers=SimpleNamespace(list=listed), networks=nothing, images=nothing)


def test_leftovers_are_those_of_dead_owners_of_this_machine_alone():
    here, dead = docker_leftovers.machine(), f"{os.getpid()}:1"

    def of(owner, machine):
        return labelled(**{docker_leftovers.OWNER: owner, docker_leftovers.MACHINE: machine})

    left = of(dead, here)
    engine = engine_with(left, of(orphans.owner_tag(), here), of(dead, "another/pid:[1]/0"), of("strange", here))
    assert [leftover.item for leftover in docker_leftovers.leftovers(engine)] == [left]


def test_what_was_removed_is_counted_in_words():
    some = [docker_leftovers.DockerLeftover(kind, "x", None) for kind in ("container", "network", "container")]
    assert counted(some) == "2 containers and 1 network"
    assert counted(some[:1]) == "1 container"
