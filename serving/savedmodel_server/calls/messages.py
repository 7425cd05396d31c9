"""Replies that are protos: model status and metadata, for gRPC and as TensorFlow Serving prints them in JSON.

The stubs come from the package tensorflow-serving-api, which imports tensorflow: this module is imported late.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from serving.savedmodel_server.errors import Code
from serving.savedmodel_server.versions.model_versions import Version
from serving.savedmodel_server.versions.servable import Servable

SIGNATURE_DEF = "signature_def"


def status_json(versions: Sequence[Version]) -> bytes:
    """GetModelStatusResponse in JSON."""
    entries = [
        {
            "version": str(version.number),
            "state": version.state.name,
            "status": {
                "error_code": version.error.code.name if version.error else "OK",
                "error_message": version.error.message if version.error else "",
            },
        }
        for version in versions
    ]
    return orjson.dumps({"model_version_status": entries}, option=orjson.OPT_INDENT_2)


def status_proto(versions: Sequence[Version]) -> Any:
    """GetModelStatusResponse."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in versions:
        entry = response.model_version_status.add(version=version.number, state=int(version.state))
        entry.status.error_code = int(version.error.code if version.error else Code.OK)
        entry.status.error_message = version.error.message if version.error else ""
    return response


def metadata_proto(servable: Servable) -> Any:
    """GetModelMetadataResponse with the one field there is, signature_def."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = servable.name
    response.model_spec.version.value = servable.version
    response.metadata[SIGNATURE_DEF].Pack(_signature_map(servable))
    return response


def _signature_map(servable: Servable) -> Any:
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in servable.signature_protos.items():
        signatures.signature_def[name].CopyFrom(signature)
    return signatures


def metadata_json(servable: Servable) -> bytes:
    """GetModelMetadataResponse in JSON, proto field names and empty fields included."""
    spec = {"name": servable.name, "signature_name": "", "version": str(servable.version)}
    definition = json_format.MessageToDict(
        _signature_map(servable), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return json.dumps({"model_spec": spec, "metadata": {SIGNATURE_DEF: definition}}, indent=1).encode()
