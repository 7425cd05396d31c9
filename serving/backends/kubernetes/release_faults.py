"""Whether a release is as it should be, and if not, why: from what was observed, from logs, from the model in it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from models.manifest import ModelDir
from serving.backends.kubernetes.api_objects import answer_of
from serving.backends.kubernetes.api_watches import ReleaseWatches
from serving.backends.kubernetes.cluster import Cluster, asking
from serving.backends.kubernetes.execute import NotExecuted, execute
from serving.backends.kubernetes.logs import tail
from serving.backends.kubernetes.model_check import holds, sentence
from serving.backends.kubernetes.pod_troubles import Trouble, lost, not_created, trouble, unscaled
from serving.backends.kubernetes.pods import SERVER, image_of
from serving.backends.kubernetes.release_state import Observed, PodReplica
from serving.deployment import Engine
from serving.errors import DeploymentError
from serving.failed_load import REST_OF_LOG_S, reason

_ERROR_LINES = 15
_ALL_LINES = 1000
_ASK_S = 1.0
"""Between looks at logs and files, which cost the cluster something."""
_MODEL = "model-0"
"""The chart's init container that brings the model."""


class Faults:
    """Of one release. `wanted` pods are to be there, `dismissed` ones have been removed by us."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        observed: Observed,
        watching: ReleaseWatches,
        engine: Engine,
        model: ModelDir,
        *,
        fatal: str | None,
        autoscaled: bool,
    ) -> None:
        self.wanted = self.dismissed = 0
        self._cluster, self._namespace = cluster, namespace
        self._observed, self._watching = observed, watching
        self._engine, self._model, self._fatal, self._autoscaled = engine, model, fatal, autoscaled
        self._since: dict[object, float] = {}
        self._asked = -math.inf
        self._checked = False

    def settled(self) -> bool:
        """Whether as many replicas as wanted are there and ready; an autoscaler must have metrics besides."""
        active = self._observed.active()
        ready = sum(replica.ready for replica in active)
        if self._autoscaled:
            scaler = self._observed.autoscaler
            return ready >= self.wanted and scaler is not None and unscaled(scaler) is None
        return len(active) == ready == self.wanted

    def alive(self) -> bool:
        """Whether nobody is missing: no server has ended, and no pod went but those that we removed."""
        active = self._observed.active()
        if not active or any(replica.failed for replica in self._observed.replicas):
            return False
        return self._autoscaled or (not self._deserters() and len(active) >= self.wanted)

    def look(self) -> None:
        """Raise DeploymentError where something is wrong that will not come right by itself."""
        self._watching.check()
        if fault := self._departure() or self._pods() or self._scaling():
            raise DeploymentError(fault)
        if time.monotonic() - self._asked >= _ASK_S:
            self._check_model()
            self._read_logs()
            self._asked = time.monotonic()

    def late(self, timeout_s: float) -> str:
        """Why not everything was ready in time."""
        for replica in self._observed.active():
            if not replica.ready:
                fault = self._trouble(replica)
                if fault:
                    return self._with_log(replica, fault)
                late = f"{self._who(replica)} was not ready within {timeout_s:g} s: raise the timeout or see its log."
                return self._with_log(replica, Trouble(late, container=SERVER if replica.started else None))
        if len(self._observed.active()) < self.wanted:
            return self._missing(timeout_s)
        fault = unscaled(self._observed.autoscaler or {})
        return fault.sentence if fault else f"the release {self._observed.release} was not ready in {timeout_s:g} s."

    def _missing(self, timeout_s: float) -> str:
        if refusal := self._observed.refusal():
            return not_created(refusal, self._engine.name).sentence
        if self._removed():
            return self._removal()
        have = len(self._observed.active())
        return (
            f"{have} of {self.wanted} pods of {self._engine.name} were made within {timeout_s:g} s: look at "
            f"`kubectl describe deployment {self._observed.release} --namespace {self._namespace}`."
        )

    def _who(self, replica: PodReplica) -> str:
        return f"{self._engine.name} replica {replica.index}"

    def _deserters(self) -> Sequence[PodReplica]:
        """Pods that are gone, or on their way, although we did not remove them."""
        if self._autoscaled:
            return ()
        gone = [replica for replica in self._observed.replicas if not replica.active]
        return gone[self.dismissed :]

    def _departure(self) -> str | None:
        """What became of a pod that went unasked."""
        deserters = self._deserters()
        if not deserters:
            return None
        replica = deserters[-1]
        if replica.failed and (fault := self._trouble(replica)):
            return self._with_log(replica, fault)
        if self._removed():
            return self._removal()
        return (
            f"{self._who(replica)} (pod {replica.name}) was deleted by somebody else: run the study again, and leave "
            "its pods alone meanwhile."
        )

    def _removed(self) -> bool:
        """Whether somebody has removed the release."""
        from kubernetes.client import ApiException

        with asking(f"read the deployment {self._observed.release}"):
            try:
                answer_of(self._cluster.apps.read_namespaced_deployment, self._observed.release, self._namespace)
            except ApiException as error:
                if error.status != 404:
                    raise
                return True
        return False

    def _removal(self) -> str:
        return (
            f"the release {self._observed.release} was removed from namespace {self._namespace} by somebody else: run "
            "the study again, and leave its releases alone meanwhile."
        )

    def _pods(self) -> str | None:
        """The first pod's trouble that will not come right by itself, or the reason for which there is none."""
        for replica in self._observed.replicas:
            if replica.active or (replica.failed and not replica.gone):
                fault = self._trouble(replica)
                if self._out_of_patience(replica.index, fault) and fault:
                    return self._with_log(replica, fault)
        refusal = self._observed.refusal() if len(self._observed.active()) < self.wanted else None
        refused = not_created(refusal, self._engine.name) if refusal else None
        return refused.sentence if self._out_of_patience("refused", refused) and refused else None

    def _scaling(self) -> str | None:
        scaler = self._observed.autoscaler
        fault = unscaled(scaler) if scaler is not None else None
        return fault.sentence if fault and self._out_of_patience("scaler", fault) else None

    def _trouble(self, replica: PodReplica) -> Trouble | None:
        if replica.lost:
            return Trouble(lost(replica.pod, self._who(replica)))
        return trouble(replica.pod, self._who(replica), self._observed.warning(replica))

    def _out_of_patience(self, about: object, fault: Trouble | None) -> bool:
        """Whether a trouble has lasted longer than its patience, and is to be reported now."""
        if fault is None:
            self._since.pop(about, None)
            return False
        now = time.monotonic()
        return now - self._since.setdefault(about, now) >= fault.patience_s

    def _with_log(self, replica: PodReplica, fault: Trouble) -> str:
        lines = self._tail(replica, fault) if fault.container else ""
        return fault.sentence + (f" Its log ends with:\n{lines}" if lines else "")

    def _tail(self, replica: PodReplica, fault: Trouble) -> str:
        """Of the container that ended, or, where that one's log is gone already, of the one in its place."""
        container = fault.container or SERVER
        for previous in (True, False) if fault.previous else (False,):
            lines = tail(self._cluster, self._namespace, replica.name, container, _ERROR_LINES, previous=previous)
            if lines:
                return lines
        return ""

    def _check_model(self) -> None:
        """Once, as soon as a server runs: a study of the wrong model must not go on."""
        replica = next((one for one in self._observed.active() if one.started), None)
        if self._checked or replica is None:
            return

        def run(command: Sequence[str]) -> tuple[int, bytes]:
            done = execute(self._cluster, self._namespace, replica.name, SERVER, command)
            return done.code, done.out

        try:
            right = holds(run, self._engine.artifact, self._model)
        except NotExecuted:
            if replica.ready:
                raise
            return  # its container may have ended at this moment, which the watch will report
        if not right:
            raise DeploymentError(sentence(self._who(replica), self._model, image_of(replica.pod, _MODEL)))
        self._checked = True

    def _read_logs(self) -> None:
        """Raise DeploymentError where a server's log shows that it will never be ready."""
        for replica in self._observed.active():
            if self._fatal and replica.started and not replica.ready:
                lines = self._lines(replica)
                if reason(lines, self._fatal):
                    time.sleep(REST_OF_LOG_S)
                    lines = self._lines(replica) or lines  # of one that has ended meanwhile there may be no log
                    why = reason(lines, self._fatal)
                    ends = "\n".join(lines[-_ERROR_LINES:])
                    raise DeploymentError(
                        f"{self._who(replica)} cannot load the model ({why}): correct it, then export or import it "
                        f"again. Its log ends with:\n{ends}"
                    )

    def _lines(self, replica: PodReplica) -> list[str]:
        return tail(self._cluster, self._namespace, replica.name, SERVER, _ALL_LINES).splitlines()
