"""The FastAPI application: the OpenAPI page, the metrics page, and the REST API as routes for its description.

Imported late, as FastAPI's import takes longer than a small model's load.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Path, Request, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.rest.api import RestApi
from serving.savedmodel_server.rest.http_reply import Reply

ModelName = Annotated[str, Path(description="name of a model that is served", examples=["cnn"])]
VersionNumber = Annotated[int, Path(description="number of a version", ge=0)]
Label = Annotated[str, Path(description="a label of the model configuration")]
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "the request is malformed (INVALID_ARGUMENT)"},
    404: {"description": "the model or the version is not served (NOT_FOUND)"},
    413: {"description": "the body is larger than --max_request_bytes"},
    503: {"description": "the batching queue is full (UNAVAILABLE)"},
    504: {"description": "--rest_api_timeout_in_ms has passed (DEADLINE_EXCEEDED)"},
}


class PredictBody(BaseModel):
    """Rows or columns; one of `instances` and `inputs`."""

    signature_name: str = Field(default="serving_default", description="signature to call")
    instances: list[Any] | None = Field(default=None, description="one entry a row: a value, a list or an object")
    inputs: Any | None = Field(default=None, description="one tensor, or an object of named tensors")


class ExamplesBody(BaseModel):
    """tf.Examples in JSON."""

    signature_name: str = Field(default="serving_default", description="signature to call")
    context: dict[str, Any] | None = Field(default=None, description="features that all examples share")
    examples: list[dict[str, Any]] = Field(description="features by name: a value or a list of values")


def make_app(api: RestApi, metrics: Metrics, metrics_path: str | None) -> FastAPI:
    """The application; without `metrics_path` there is no metrics page."""
    app = FastAPI(
        title="savedmodel-server",
        description="TensorFlow SavedModels over TensorFlow Serving's REST API. It is not TensorFlow Serving.",
        version="1",
    )
    _add_calls(app, api)
    _add_looks(app, api)
    if metrics_path is not None:
        _add_metrics(app, metrics, metrics_path)
    app.add_exception_handler(HTTPException, _http_error)
    return app


def _add_calls(app: FastAPI, api: RestApi) -> None:
    async def call(request: Request) -> Response:
        return _response(await api.answer("POST", _raw_path(request), await request.body()))

    for verb, model in (("predict", PredictBody), ("classify", ExamplesBody), ("regress", ExamplesBody)):
        schema = {"requestBody": {"required": True, "content": {"application/json": {"schema": _schema(model)}}}}
        for where in ("", "/versions/{version}", "/labels/{label}"):
            app.add_api_route(
                f"/v1/models/{{model_name}}{where}:{verb}",
                _with_parameters(call, where),
                methods=["POST"],
                openapi_extra=schema,
                responses=ERRORS,
                summary=f"{verb.capitalize()} with a model",
                operation_id=f"{verb}{_suffix(where)}",
            )


def _add_looks(app: FastAPI, api: RestApi) -> None:
    async def look(request: Request) -> Response:
        return _response(await api.answer("GET", _raw_path(request), b""))

    for end, what in (("/metadata", "metadata"), ("", "status")):
        for where in ("", "/versions/{version}", "/labels/{label}"):
            app.add_api_route(
                f"/v1/models/{{model_name}}{where}{end}",
                _with_parameters(look, where),
                methods=["GET"],
                responses={404: ERRORS[404]},
                summary=f"The {what} of a model",
                operation_id=f"{what}{_suffix(where)}",
            )


def _with_parameters(endpoint: Any, where: str) -> Any:
    """The endpoint with the path's parameters in its signature, which FastAPI describes and leaves unchecked to us."""
    if "version" in where:

        async def versioned(request: Request, model_name: ModelName, version: VersionNumber) -> Response:
            return await endpoint(request)  # type: ignore[no-any-return]

        return versioned
    if "label" in where:

        async def labelled(request: Request, model_name: ModelName, label: Label) -> Response:
            return await endpoint(request)  # type: ignore[no-any-return]

        return labelled

    async def plain(request: Request, model_name: ModelName) -> Response:
        return await endpoint(request)  # type: ignore[no-any-return]

    return plain


def _suffix(where: str) -> str:
    return {"": "", "/versions/{version}": "_version", "/labels/{label}": "_label"}[where]


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _add_metrics(app: FastAPI, metrics: Metrics, path: str) -> None:
    @app.get(path, summary="Metrics in Prometheus text", operation_id="metrics")
    async def page() -> Response:
        return Response(metrics.page(), media_type="text/plain; version=0.0.4")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


def _raw_path(request: Request) -> str:
    return bytes(request.scope["raw_path"]).decode("latin-1")


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, media_type=reply.content_type.decode())
