"""Reload requests, good and damaged, and what a server must serve after each. Same seed, same bytes.

No request that can be parsed names a base path outside the folder that it is made for: a server would look for versions
there, and load them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from tests.serving.savedmodel_server.mutations import damage

RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
ANSWER_S = 60
AVAILABLE = 30
NAMES = ["half_plus_two", "new", "newer", "", "a/b", "ä\u20ac\U0001f600", "n" * 5000, "a\nb", "..", "{}", "%2e", " "]
PLATFORMS = ["", "tensorflow", "TensorFlow", "tensorflow ", "caffe", "p" * 3000, "\x00"]
LABELS = ["stable", "canary", "", "l" * 2000, "ü"]
NUMBERS = [0, 1, 2, 3, -1, 2**31, 2**63 - 1, -(2**63)]
METRICS = ["/tensorflow/serving/request_count", ":tensorflow:serving:request_count", "", "/", "\n", "m" * 9000]


def _messages() -> Any:
    from tensorflow_serving.apis import model_management_pb2

    return model_management_pb2


def good_request(config: str) -> Any:
    """Asks for what a --model_config_file holds."""
    request = _messages().ReloadConfigRequest()
    text_format.Parse(config, request.config)
    return request


def requests(seed: int, count: int, folder: Path) -> Iterator[bytes]:
    """Requests around the configuration in `folder`: a tenth good, two damaged in their bytes, the others odd."""
    rng = random.Random(seed)
    config = (folder / "models.config").read_text()
    for _ in range(count):
        request, kind = good_request(config), rng.random()
        if kind >= 0.1:
            for _ in range(rng.randint(1, 3)):
                rng.choice(_CHANGES)(request, rng, folder)
        yield _damaged(request.SerializeToString(), rng, folder) if kind > 0.8 else request.SerializeToString()


def _damaged(message: bytes, rng: random.Random, folder: Path) -> bytes:
    while True:
        found = damage(message, rng)
        try:
            config = _messages().ReloadConfigRequest.FromString(found).config
        except DecodeError:
            return found
        if all(_is_in(folder, entry.base_path) for entry in config.model_config_list.config):
            return found


def _is_in(folder: Path, base_path: str) -> bool:
    """Also of what is no absolute path, which a server must refuse."""
    if "://" not in base_path and not base_path.startswith("/"):
        return True
    path = base_path.removeprefix("file://")
    return ".." not in path and (path == str(folder) or path.startswith(f"{folder}/"))


def _entry(request: Any, rng: random.Random) -> Any:
    """One of the models that are cheap to load, or a new one."""
    found = [entry for entry in request.config.model_config_list.config if entry.name != "zoo"]
    if found and rng.random() < 0.6:
        return rng.choice(found)
    return request.config.model_config_list.config.add(name=f"new{rng.randrange(3)}", model_platform="tensorflow")


def _name(request: Any, rng: random.Random, folder: Path) -> None:
    entry = _entry(request, rng)
    entry.name = rng.choice(NAMES)
    entry.base_path = entry.base_path or f"{folder}/half_plus_two"


def _base_path(request: Any, rng: random.Random, folder: Path) -> None:
    good = f"{folder}/half_plus_two"
    paths = [good, good, f"file://{good}", f"{good}/", f"{good}/1", f"{folder}/nowhere", f"{folder}/a\x00b"]
    paths += [str(folder), "", "relative", "./", "file:", f"{folder}/{'d' * 5000}", f"gs://{folder}", "a://b"]
    _entry(request, rng).base_path = rng.choice(paths)


def _platform(request: Any, rng: random.Random, folder: Path) -> None:
    entry = _entry(request, rng)
    entry.base_path = entry.base_path or f"{folder}/half_plus_two"
    entry.model_platform = rng.choice(PLATFORMS)
    entry.model_type = rng.choice([0, 0, 1, 2, 7])


def _moved_label(request: Any, rng: random.Random, _: Path) -> None:
    for entry in request.config.model_config_list.config:
        for label in sorted(entry.version_labels):
            entry.version_labels[label] = rng.choice(NUMBERS)


def _labels(request: Any, rng: random.Random, folder: Path) -> None:
    for _ in range(rng.choice([1, 2, 100])):
        _entry_in(request, rng, folder).version_labels[rng.choice(LABELS)] = rng.choice(NUMBERS)


def _policy(request: Any, rng: random.Random, folder: Path) -> None:
    policy = _entry_in(request, rng, folder).model_version_policy
    kind = rng.randrange(4)
    if kind == 0:
        policy.all.SetInParent()
    elif kind == 1:
        policy.latest.num_versions = rng.choice([0, 1, 2, 2**32 - 1])
    elif kind == 2:
        policy.specific.versions.extend(rng.choices(NUMBERS, k=rng.randrange(4)))
    else:
        policy.SetInParent()


def _entry_in(request: Any, rng: random.Random, folder: Path) -> Any:
    entry = _entry(request, rng)
    entry.base_path = entry.base_path or f"{folder}/half_plus_two"
    return entry


def _metric_names(request: Any, rng: random.Random, _: Path) -> None:
    request.metric_names.extend(rng.choices(METRICS, k=rng.choice([1, 3, 200])))


def _double(request: Any, rng: random.Random, folder: Path) -> None:
    request.config.model_config_list.config.add().CopyFrom(_entry_in(request, rng, folder))


def _leave_out(request: Any, rng: random.Random, _: Path) -> None:
    models = request.config.model_config_list.config
    if cheap := [entry for entry in models if entry.name != "zoo"]:
        models.remove(rng.choice(cheap))


def _other_kind(request: Any, rng: random.Random, _: Path) -> None:
    if rng.random() < 0.5:
        request.config.custom_model_config.type_url = "a"
    else:
        request.ClearField("config")


def _logging(request: Any, rng: random.Random, folder: Path) -> None:
    _entry_in(request, rng, folder).logging_config.SetInParent()


_CHANGES: list[Callable[[Any, random.Random, Path], None]] = [
    _name, _base_path, _base_path, _platform, _labels, _moved_label, _policy, _metric_names, _double, _leave_out,
    _other_kind, _logging,
]  # fmt: skip


class Reloads:
    """Sends reload requests to a server that was started with `folder`/models.config, and knows what it must serve."""

    def __init__(self, channel: grpc.Channel, folder: Path) -> None:
        self._channel = channel
        self._first = good_request((folder / "models.config").read_text())
        self.served: dict[str, set[int]] = {}
        self.codes: list[str] = []
        self.faults: list[str] = []
        self._take(self._first)

    def send(self, message: bytes) -> None:
        """One request; what it should not have done is in `faults`."""
        code, details = self._call(RELOAD, message)
        self.codes.append(code)
        try:
            request = _messages().ReloadConfigRequest.FromString(message)
        except DecodeError:
            request = None
        if "Internal error" in details or (request is not None and code in ("UNKNOWN", "INTERNAL")):
            self.faults.append(f"{message!r}: {code} {details}")
        before = self.served
        if code == "OK":
            self._take(request)
        for name in before.keys() | self.served.keys():
            found = self._versions(name)
            if name and found != self.served.get(name, set()):
                self.faults.append(f"{message!r}: {code} {details}: {name!r} has {found} of {self.served}")

    def restore(self) -> None:
        """Serve again what was served at first: labels last, as they need their versions."""
        unlabelled = _messages().ReloadConfigRequest()
        unlabelled.CopyFrom(self._first)
        for entry in unlabelled.config.model_config_list.config:
            entry.version_labels.clear()
        for request in (unlabelled, self._first):
            self.send(request.SerializeToString())
            if self.codes.pop() != "OK":
                self.faults.append("the first configuration cannot be had again")

    def _take(self, request: Any) -> None:
        entries = request.config.model_config_list.config
        self.served = {entry.name: _chosen(entry, self.served.get(entry.name, set())) for entry in entries}

    def _versions(self, name: str) -> set[int]:
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = name
        reply: list[bytes] = []
        code, _ = self._call(STATUS, request.SerializeToString(), reply)
        if code != "OK":
            return set()
        states = get_model_status_pb2.GetModelStatusResponse.FromString(reply[0]).model_version_status
        return {state.version for state in states if state.state == AVAILABLE}

    def _call(self, method: str, message: bytes, reply: list[bytes] | None = None) -> tuple[str, str]:
        try:
            answer = self._channel.unary_unary(method)(message, timeout=ANSWER_S)
        except grpc.RpcError as error:
            return error.code().name, str(error.details())
        if reply is not None:
            reply.append(answer)
        return "OK", ""


def _chosen(entry: Any, before: set[int]) -> set[int]:
    """The versions of a model that are served; those before where its base path cannot be read."""
    try:
        folders = [path for path in Path(entry.base_path.removeprefix("file://")).iterdir() if path.is_dir()]
    except (OSError, ValueError):
        return before
    versions = sorted(int(path.name) for path in folders if path.name.isdecimal())
    policy = entry.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return set(versions)
    if kind == "specific":
        return set(versions) & set(policy.specific.versions)
    return set(versions[-(policy.latest.num_versions or 1) :])
