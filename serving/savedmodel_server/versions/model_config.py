"""Which models to serve: from flags, from a ModelServerConfig file, or from a reload request; and the TLS file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving.savedmodel_server.errors import FlagError, RequestError, invalid
from serving.savedmodel_server.flags import Flags
from serving.savedmodel_server.textproto import message_class, read_text_proto
from serving.savedmodel_server.versions.repository import ModelConfig, VersionPolicy


def flag_configs(flags: Flags) -> list[ModelConfig]:
    """The one model of --model_name and --model_base_path."""
    return [ModelConfig(flags.model_name, Path(flags.model_base_path))]


def read_model_config_file(flags: Flags) -> list[ModelConfig]:
    """The models of --model_config_file; raises FlagError."""
    from tensorflow_serving.config import model_server_config_pb2

    path = Path(flags.model_config_file)
    proto = read_text_proto(path, model_server_config_pb2.ModelServerConfig(), "model_config_file")
    try:
        return configs_of_request(proto)
    except RequestError as error:
        raise FlagError(f"--model_config_file={path}: {error.message}") from error


def configs_of_request(proto: Any) -> list[ModelConfig]:
    """The models of a ModelServerConfig; raises RequestError (INVALID_ARGUMENT) that names the model at fault."""
    if proto.WhichOneof("config") != "model_config_list":
        raise invalid("A ModelServerConfig needs a model_config_list.")
    configs = [_config(entry) for entry in proto.model_config_list.config]
    names = [config.name for config in configs]
    for name in names:
        if names.count(name) > 1:
            raise invalid(f"Illegal to list model {name} multiple times in config list")
    return configs


def _config(entry: Any) -> ModelConfig:
    if not entry.name:
        raise invalid("Each model of a model_config_list needs a name.")
    if not entry.base_path:
        raise invalid(f"Model {entry.name} needs a base_path.")
    if entry.model_platform not in ("", "tensorflow"):
        raise invalid(f"Model {entry.name}: model_platform {entry.model_platform!r} is not served, only 'tensorflow'.")
    if not Path(entry.base_path).is_absolute():
        raise invalid(f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}")
    return ModelConfig(
        entry.name, Path(entry.base_path), _policy(entry.name, entry.model_version_policy), dict(entry.version_labels)
    )


def _policy(name: str, proto: Any) -> VersionPolicy:
    chosen = proto.WhichOneof("policy_choice")
    if chosen == "all":
        return VersionPolicy(every=True)
    if chosen == "specific":
        if not proto.specific.versions:
            raise invalid(f"Model {name}: a specific version policy needs versions.")
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
