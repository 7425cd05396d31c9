"""Which models to serve: from flags, from a ModelServerConfig file, or from a reload request; and the TLS file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from serving.savedmodel_server.errors import FlagError, RequestError, invalid
from serving.savedmodel_server.flags import Flags
from serving.savedmodel_server.textproto import message_class, read_text_proto
from serving.savedmodel_server.versions.model_versions import ModelConfig, VersionPolicy, unavailable

_PLATFORM = "tensorflow"
"""The one platform that is served."""
_TENSORFLOW_TYPE = 1
_BOTH_WAYS = ("ModelServerConfig::model_type (deprecated)", "ModelServerConfig::model_platform")


def flag_configs(flags: Flags) -> list[ModelConfig]:
    """The one model of --model_name and --model_base_path."""
    return [ModelConfig(flags.model_name, Path(flags.model_base_path))]


def read_model_config_file(flags: Flags) -> list[ModelConfig]:
    """The models of --model_config_file; raises FlagError."""
    from tensorflow_serving.config import model_server_config_pb2

    path = Path(flags.model_config_file)
    proto = read_text_proto(path, model_server_config_pb2.ModelServerConfig(), "model_config_file")
    try:
        return _configs_of_file(proto)
    except RequestError as error:
        raise FlagError(f"--model_config_file={path}: {error.message}") from error


def _configs_of_file(proto: Any) -> list[ModelConfig]:
    if proto.WhichOneof("config") != "model_config_list":
        raise invalid("A ModelServerConfig needs a model_config_list.")
    if not all(entry.name for entry in proto.model_config_list.config):
        raise invalid("Each model of a model_config_list needs a name.")
    configs = configs_of_request(proto)
    check_new_models(proto, served=())
    return configs


def check_first_labels(configs: Iterable[ModelConfig], flags: Flags) -> None:
    """Refuse labels at the start, where no version is loaded yet, unless a flag allows them; raises FlagError."""
    if flags.allow_version_labels_for_unavailable_models:
        return
    for config in configs:
        for number in config.labels.values():
            raise FlagError(
                f"{unavailable(number, config.name)}: add --allow_version_labels_for_unavailable_models, as labels are "
                "assigned before any version is loaded, or assign them with a reload later."
            )


def configs_of_request(proto: Any) -> list[ModelConfig]:
    """The models of a ModelServerConfig; raises RequestError (INVALID_ARGUMENT) with TensorFlow Serving's text.

    Platforms are checked by `check_served_models` and `check_new_models`.
    """
    if proto.WhichOneof("config") != "model_config_list":
        raise invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    entries = proto.model_config_list.config
    counts = Counter(entry.name for entry in entries)
    for name, count in counts.items():
        if count > 1:
            raise invalid(f"Illegal to list model {name} multiple times in config list")
    return [_config(entry) for entry in entries]


def check_served_models(proto: Any, served: Collection[str]) -> None:
    """Refuse another platform for a model that is served; raises RequestError (INVALID_ARGUMENT)."""
    for entry in proto.model_config_list.config:
        if entry.name in served and (platform := _platform(entry)) != _PLATFORM:
            raise invalid(
                f"Illegal to change a model's platform. For model {entry.name} platform was {_PLATFORM} "
                f"and new platform requested is {platform}"
            )


def check_new_models(proto: Any, served: Collection[str]) -> None:
    """Refuse what this server cannot do for a model, new or not; raises RequestError (INVALID_ARGUMENT)."""
    for entry in proto.model_config_list.config:
        if entry.name not in served and (platform := _platform(entry)) != _PLATFORM:
            raise invalid(f"Model {entry.name} requests unsupported platform {platform}")
    if any(entry.HasField("logging_config") for entry in proto.model_config_list.config):
        raise invalid("No request-logger-creator provided.")


def _platform(entry: Any) -> str:
    if entry.model_type:
        if entry.model_platform:
            raise invalid(f"Illegal setting both {_BOTH_WAYS[0]} and {_BOTH_WAYS[1]}, model name is {entry.name}")
        if entry.model_type != _TENSORFLOW_TYPE:
            raise invalid(f"ModelServerConfig::model_type choice {entry.model_type} not supported.")
        return _PLATFORM
    if not entry.model_platform:
        raise invalid(f"Illegal setting neither {_BOTH_WAYS[0]} nor {_BOTH_WAYS[1]}, model name is {entry.name}")
    return str(entry.model_platform)


def _config(entry: Any) -> ModelConfig:
    return ModelConfig(entry.name, _base_path(entry), _policy(entry.model_version_policy), dict(entry.version_labels))


def _base_path(entry: Any) -> Path:
    """A folder here, or one as the URI file:///folder."""
    scheme, separator, rest = entry.base_path.partition("://")
    if separator and re.fullmatch(r"[a-zA-Z][a-zA-Z0-9.]*", scheme):
        if scheme != "file":
            raise invalid(f"File system scheme '{scheme}' not implemented (file: '{entry.base_path}')")
        return Path("/", rest.partition("/")[2])
    if not entry.base_path.startswith("/"):
        raise invalid(f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}")
    return Path(entry.base_path)


def _policy(proto: Any) -> VersionPolicy:
    chosen = proto.WhichOneof("policy_choice")
    if chosen == "all":
        return VersionPolicy(every=True)
    if chosen == "specific":
        return VersionPolicy(specific=frozenset(proto.specific.versions))
    return VersionPolicy(latest=proto.latest.num_versions or 1)


def tls_credentials(path: str) -> Any | None:
    """gRPC server credentials from an SSLConfig text proto, whose keys are PEM text; None without a file."""
    if not path:
        return None
    import grpc

    proto = read_text_proto(Path(path), message_class("SSLConfig")(), "ssl_config_file")
    if not proto.server_key or not proto.server_cert:
        raise FlagError(f"--ssl_config_file={path} needs server_key and server_cert.")
    return grpc.ssl_server_credentials(
        [(proto.server_key.encode(), proto.server_cert.encode())],
        root_certificates=proto.custom_ca.encode() or None,
        require_client_auth=proto.client_verify,
    )
