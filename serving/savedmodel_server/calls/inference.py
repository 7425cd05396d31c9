"""The inference methods on protos: what gRPC answers, what warm-up replays, and what REST's classify and regress call.

The stubs come from the package tensorflow-serving-api, which imports tensorflow: this module is imported late.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.savedmodel_server.calls.call import ANYBODY, Caller, row_count
from serving.savedmodel_server.calls.dispatch import Dispatcher
from serving.savedmodel_server.dtypes import DT_FLOAT, DT_STRING, Array
from serving.savedmodel_server.errors import Code, RequestError, invalid
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.versions.servable import Servable
from serving.savedmodel_server.versions.signatures import DEFAULT_SIGNATURE, Signature
from serving.savedmodel_server.versions.tensor_proto import decode_tensors, encode_tensor

CLASSIFY, REGRESS, PREDICT = (f"tensorflow/serving/{verb}" for verb in ("classify", "regress", "predict"))


class PredictPlan(NamedTuple):
    """A checked PredictRequest: inputs in the signature's order, and the outputs that are asked for."""

    signature: Signature
    arrays: tuple[Array, ...]
    outputs: tuple[str, ...]


class Inference:
    """Runs proto requests on servables; safe from any thread."""

    def __init__(
        self, metrics: Metrics, dispatcher: Dispatcher, *, as_content: bool = False, check_method_names: bool = False
    ) -> None:
        self._metrics = metrics
        self._dispatcher = dispatcher
        self._as_content = as_content
        self._check_method_names = check_method_names

    def predict(self, servable: Servable, request: Any, caller: Caller = ANYBODY) -> Any:
        """PredictResponse to a PredictRequest; raises RequestError."""
        plan = self.plan_predict(servable, request)
        outputs = self._run(servable, plan.signature, plan.arrays, "Predict", caller)
        return self.predicted(servable, plan, outputs)

    def plan_predict(self, servable: Servable, request: Any) -> PredictPlan:
        """What a PredictRequest asks to run; raises RequestError."""
        signature = servable.signature(request.model_spec.signature_name)
        self._check_predict(signature)
        arrays = signature.arrange(decode_tensors(request.inputs))
        return PredictPlan(signature, arrays, _filtered(signature, request.output_filter))

    def predicted(self, servable: Servable, plan: PredictPlan, outputs: Sequence[Array]) -> Any:
        """PredictResponse with what ran."""
        signature = plan.signature
        by_name = dict(zip(signature.outputs, outputs, strict=True))
        self.count_examples(servable.name, row_count(plan.arrays))
        response = predict_pb2.PredictResponse()
        _fill_spec(response.model_spec, servable, signature.name)
        for name in plan.outputs:
            encode_tensor(
                by_name[name], signature.outputs[name].dtype, response.outputs[name], as_content=self._as_content
            )
        return response

    def _check_predict(self, signature: Signature) -> None:
        allowed = (PREDICT, CLASSIFY, REGRESS)
        if self._check_method_names and signature.method_name not in allowed:
            raise RequestError(
                Code.INTERNAL,
                f"Expected prediction signature method_name to be one of {{{', '.join(allowed)}}}. "
                f"Was: {signature.method_name}",
            )

    def classify(self, servable: Servable, request: Any, caller: Caller = ANYBODY) -> Any:
        """ClassificationResponse to a ClassificationRequest; raises RequestError."""
        signature = self._example_signature(servable, request.model_spec.signature_name, CLASSIFY)
        examples = serialized_examples(request.input)
        outputs = self._run(servable, signature, (examples,), "Classify", caller)
        response = classification_pb2.ClassificationResponse()
        _fill_spec(response.model_spec, servable, signature.name)
        _fill_classes(response.result, signature, outputs, len(examples))
        self.count_examples(servable.name, len(examples))
        return response

    def regress(self, servable: Servable, request: Any, caller: Caller = ANYBODY) -> Any:
        """RegressionResponse to a RegressionRequest; raises RequestError."""
        signature = self._example_signature(servable, request.model_spec.signature_name, REGRESS)
        examples = serialized_examples(request.input)
        outputs = self._run(servable, signature, (examples,), "Regress", caller)
        response = regression_pb2.RegressionResponse()
        _fill_spec(response.model_spec, servable, signature.name)
        _fill_values(response.result, outputs[0], len(examples))
        self.count_examples(servable.name, len(examples))
        return response

    def multi_inference(self, servable: Servable, request: Any, caller: Caller = ANYBODY) -> Any:
        """MultiInferenceResponse to a MultiInferenceRequest; raises RequestError."""
        _check_tasks(request.tasks)
        plans = [self._plan(servable, task) for task in request.tasks]
        examples = serialized_examples(request.input)
        response = inference_pb2.MultiInferenceResponse()
        for signature, method in plans:
            result = response.results.add()
            outputs = self._run(servable, signature, (examples,), "MultiInference", caller)
            if method == CLASSIFY:
                _fill_classes(result.classification_result, signature, outputs, len(examples))
            else:
                _fill_values(result.regression_result, outputs[0], len(examples))
            _fill_spec(result.model_spec, servable, signature.name)
        self.count_examples(servable.name, len(examples))
        return response

    def _plan(self, servable: Servable, task: Any) -> tuple[Signature, str]:
        key = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if key not in servable.signatures:
            raise invalid(f"Requested signature not found in model graph: {key}")
        if task.method_name not in (CLASSIFY, REGRESS):
            raise RequestError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        return self._example_signature(servable, key, task.method_name), task.method_name

    def _example_signature(self, servable: Servable, key: str, method: str) -> Signature:
        signature = servable.signatures.get(key or DEFAULT_SIGNATURE)
        if signature is None:
            raise invalid(f"No signature was found with the name: {key or DEFAULT_SIGNATURE}")
        kind = "classification" if method == CLASSIFY else "regression"
        if self._check_method_names and signature.method_name != method:
            raise invalid(f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}")
        if len(signature.inputs) != 1:
            raise invalid("Expected one input Tensor.")
        if "inputs" not in signature.inputs:
            raise invalid(f"No {kind} inputs found in SignatureDef: {signature.name}")
        _check_outputs(signature, method)
        return signature

    def _run(
        self,
        servable: Servable,
        signature: Signature,
        arrays: tuple[Array, ...],
        api: str,
        caller: Caller,
    ) -> Sequence[Array]:
        begin = time.perf_counter_ns()
        results = self._dispatcher.run(servable, signature, arrays, caller)
        micros = (time.perf_counter_ns() - begin) / 1000
        self._metrics.runtime_latency.observe((servable.name, api, "TF1"), micros)
        return results

    def count_examples(self, model: str, rows: int) -> None:
        """Count the rows of one request."""
        self._metrics.example_counts.observe((model,), rows)
        self._metrics.example_count_total.add((model,), rows)


def _filtered(signature: Signature, wanted: Iterable[str]) -> tuple[str, ...]:
    names = tuple(wanted)
    for i, name in enumerate(names):
        if name not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} "
                f"Outputs expected to be in the set {{{','.join(signature.outputs)}}}."
            )
        if name in names[:i]:
            raise invalid(f"duplicate output tensor alias: {name}")
    return names or tuple(signature.outputs)


def _fill_spec(spec: Any, servable: Servable, signature_name: str) -> None:
    spec.name = servable.name
    spec.signature_name = signature_name
    spec.version.value = servable.version


def serialized_examples(given: Any) -> Array:
    """tensorflow.serving.Input as a vector of serialized tf.Examples; raises RequestError where it is empty."""
    kind = given.WhichOneof("kind")
    if kind == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
        examples = [context + e.SerializeToString() for e in given.example_list_with_context.examples]
    elif kind == "example_list":
        examples = [e.SerializeToString() for e in given.example_list.examples]
    else:
        examples = []
    if not examples:
        raise invalid("Input is empty.")
    array = np.empty(len(examples), object)
    array[:] = examples
    return array


def _check_tasks(tasks: Any) -> None:
    names, seen = {task.model_spec.name for task in tasks}, set()
    if "" in names:
        raise invalid("Found ModelSpec with an empty model name.")
    if len(names) > 1:
        raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
    for task in tasks:
        key = task.model_spec.signature_name or DEFAULT_SIGNATURE
        if key in seen:
            raise invalid(f"Duplicate evaluation of signature: {key}")
        seen.add(key)


def _check_outputs(signature: Signature, method: str) -> None:
    if method == REGRESS:
        if len(signature.outputs) != 1:
            raise invalid("Expected one output Tensor.")
        if "outputs" not in signature.outputs:
            raise invalid(f"No regression outputs found in SignatureDef: {signature.name}")
        return
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if not signature.outputs.keys() <= {"classes", "scores"}:
        raise invalid(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            f"Signature was: {signature.name}"
        )


def _fill_classes(result: Any, signature: Signature, outputs: Sequence[Array], rows: int) -> None:
    by_name = dict(zip(signature.outputs, outputs, strict=True))
    for name, dtype, kind in (("classes", DT_STRING, "DT_STRING"), ("scores", DT_FLOAT, "DT_FLOAT")):
        if name not in by_name:
            continue
        array = np.asarray(by_name[name])
        if array.ndim != 2:
            raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_listed(array.shape)}")
        if signature.outputs[name].dtype != dtype:
            raise invalid(f"Expected {name} Tensor of {kind}. Got: {array.dtype.name}")
        if len(array) != rows:
            raise invalid(f"Expected {name} output batch size of {rows}. Got: {len(array)}")
    classes, scores = by_name.get("classes"), by_name.get("scores")
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {classes.shape[1]} vs. {scores.shape[1]}"
        )
    columns = (classes if classes is not None else by_name["scores"]).shape[1]
    for row in range(rows):
        entry = result.classifications.add()
        for column in range(columns):
            label = "" if classes is None else _text(classes[row, column])
            entry.classes.add(label=label, score=0.0 if scores is None else float(scores[row, column]))


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _fill_values(result: Any, array: Array, rows: int) -> None:
    if not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        raise invalid(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_listed(array.shape)}"
        )
    if len(array) != rows:
        raise invalid(f"Input batch size did not match output batch size: {rows} vs. {len(array)}")
    if array.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {array.dtype.name}")
    for value in array.ravel().tolist():
        result.regressions.add(value=value)


def _listed(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"
