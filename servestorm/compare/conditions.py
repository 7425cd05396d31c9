"""Whether two runs asked the same of the same: what differs in model, payload, budget or load, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from servestorm.plan.labels import ENGINE_SHORT
from servestorm.rundir.files import JsonObject
from servestorm.rundir.results_file import Recorded, RecordedStudy
from servestorm.rundir.shapes.environment import EnvironmentFile

NO_CONDITION = frozenset(
    {
        *("name", "model", "engines", "repetitions", "budget", "design", "cold_starts", "page_cache", "load_attempts"),
        *("seed", "cpus", "frameworks"),
        *("timeouts", "objectives", "margin_percent", "prices", "attach", "disturbance"),
    }
)
"""Keys of a plan that change what is measured and how well, not its value. Files and cores are compared themselves."""
ARTIFACT = {"savedmodel": "savedmodel", "tfserving": "savedmodel", "torchserve": "mar"}
"""The manifest's key of the file that each engine serves."""
UNBATCHED = "unbatched"
"""Kind of the doubt that an engine ran requests one by one though the plan asks for batches."""


def differences(old: Recorded, new: Recorded) -> list[str]:
    """What makes the two runs' numbers answers to different questions; empty where nothing does."""
    plans = _spelt_out(old.study), _spelt_out(new.study)
    cores = [len(side.study.cores.engine) if side.study.cores else 0 for side in (old, new)]
    sentences = [*_models(old, new), *_plan(*plans, ""), *_server_settings(old, new)]
    if all(cores) and cores[0] != cores[1]:
        sentences.append(f"cores of the engines ({cores[0]} against {cores[1]})")
    return sentences


def _spelt_out(study: RecordedStudy) -> JsonObject:
    """The plan with what a run leaves out where it was not asked for: limits, and how containers are reached."""
    plan = study.settings
    limits = zip(plan.replica_limits, ("CPU", "MiB"), strict=True)
    docker, cluster = plan.docker_reach, plan.cluster_reach
    return {
        **study.plan,
        "limits": [f"{size:g} {unit}" for size, unit in limits if size],
        "docker": {"reach": docker.reach, "balancer": docker.balancer},
        "kubernetes": {"reach": cluster.reach, "balancer": cluster.balancer},
        "load_from": plan.load_from,
    }


def _models(old: Recorded, new: Recorded) -> Iterator[str]:
    names = [_model_names(side.study.plan) for side in (old, new)]
    if names[0] != names[1]:
        yield f"model ({names[0]} against {names[1]})"
        return
    before, after = _artifacts(old), _artifacts(new)
    kinds = {ARTIFACT.get(engine) for engine in old.engines if engine in new.engines}
    for place in sorted(before.keys() & after.keys()):
        if before[place] != after[place] and place[0] in kinds:
            yield f"{place[0]} of {place[1]} (SHA-256 {before[place][:12]} against {after[place][:12]})"


def _model_names(plan: JsonObject) -> str:
    models = plan.get("model")
    listed = models if isinstance(models, list) else [models]
    return ", ".join(str(model.get("name") if isinstance(model, Mapping) else model) for model in listed)


def _artifacts(results: Recorded) -> dict[tuple[str, str], str]:
    """SHA-256 of each artifact by its kind and its model."""
    return {
        (kind, model.name): artifact.sha256
        for model in results.models
        if model
        for kind, artifact in (("savedmodel", model.savedmodel), ("mar", model.mar))
        if artifact
    }


def _plan(old: JsonValue, new: JsonValue, place: str) -> Iterator[str]:
    """What differs in what both plans say; a scenario that only one of them asks for is no difference."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in old:
            if key in new and (key not in NO_CONDITION):
                yield from _plan(old[key], new[key], f"{place}.{key}" if place else str(key))
    elif old != new and not (isinstance(old or {}, Mapping) and isinstance(new or {}, Mapping)):
        yield f"{place} ({_short(old)} against {_short(new)})"


def _server_settings(old: Recorded, new: Recorded) -> Iterator[str]:
    """What servers that ran already were set to: no plan holds it."""
    if not (old.study.settings.runs_already or new.study.settings.runs_already):
        return
    before, after = _read_settings(old), _read_settings(new)
    for engine, name in sorted(before.keys() & after.keys()):
        was, now = before[engine, name], after[engine, name]
        if was != now:
            yield f"{name} of {ENGINE_SHORT.get(engine, engine)} ({_short([*was])} against {_short([*now])})"


def _read_settings(results: Recorded) -> dict[tuple[str, str], list[int]]:
    """Those that were read, by engine and name."""
    return {(one.engine, one.name): one.values for one in results.server_settings if one.values}


def _short(value: JsonValue) -> str:
    if isinstance(value, list):
        return ", ".join(map(_short, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


_DESIGNS = {"blocks": "one after another", "interleaved": "in turns"}


def notes(old: Recorded, new: Recorded) -> list[str]:
    """What a reader must know that does not forbid the comparison."""
    sentences = []
    if old.id == new.id:
        sentences.append("OLD and NEW are the same run.")
    for name, side in (("OLD", old), ("NEW", new)):
        if side.state != "complete":
            reason = f" ({side.reason.rstrip('.')})" if side.reason else ""
            sentences.append(f"{name} is not complete: {side.state}{reason}.")
        if side.study.settings.disturbance == "ignored":
            sentences.append(f"{name} ignored what other programs and machines did (disturbance: ignored).")
        sentences += [f"{name}: {doubt.sentence}" for doubt in side.doubts if doubt.kind == UNBATCHED]
    designs = [_DESIGNS[side.study.design] for side in (old, new)]
    if designs[0] != designs[1]:
        sentences.append(f"OLD loaded its engines {designs[0]} and NEW {designs[1]}: a difference may be the design's.")
    served = any(side.study.plan.get("training") is None for side in (old, new))
    if served and not (_artifacts(old) and _artifacts(new)):
        sentences.append("Whether both served the same files cannot be told: a run does not hold their SHA-256.")
    if changed := list(_changed(_machine(old.environment), _machine(new.environment))):
        sentences.append(f"The machines differ in {', '.join(changed)}: a difference may be theirs.")
    if changed := list(_changed(_versions(old), _versions(new))):
        sentences.append(f"The versions differ: {', '.join(changed)}.")
    return sentences


def _machine(environment: EnvironmentFile) -> dict[str, str | int | None]:
    """What is compared of the machine, as far as the file has it."""
    values = {
        "cpu_model": ("processor", environment.cpu_model),
        "cores_usable": ("usable cores", environment.cores_usable),
        "memory_bytes": ("bytes of memory", environment.memory_bytes),
        "kernel": ("kernel", environment.kernel),
    }
    return {name: value for key, (name, value) in values.items() if key in environment.model_fields_set}


def _versions(results: Recorded) -> dict[str, str | int | None]:
    return {ENGINE_SHORT.get(engine, engine): version for engine, version in results.study.engines.items()}


def _changed(old: Mapping[str, str | int | None], new: Mapping[str, str | int | None]) -> Iterator[str]:
    for name in old:
        if name in new and old[name] != new[name]:
            yield f"{name} ({old[name]} against {new[name]})"
