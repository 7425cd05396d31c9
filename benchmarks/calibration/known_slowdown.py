"""Is a known slow-down found? Real studies of TorchServe against TorchServe whose handler spins a known time longer.

    python benchmarks/calibration/known_slowdown.py [--studies 20] [--percent 10 --percent 25]

Side B serves the same network from an archive whose handler uses CPU time of 10 or 25 % of the p50 more for each
request; the p50 is measured first, in a study of TorchServe against itself, and kept in the raw table. Rounds, slices,
figures and verdicts are the product's own. Every study is a line of the raw table (--raw), and the next call continues
it. Ends with 1 where the slow-down was found on p50 and on CPU time in fewer than 16 of 20 studies, or with the wrong
sign anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(HERE), str(Path(__file__).resolve().parent)]

from two_sides import RAW, append, carried_out, line, plan_text, rows_of  # noqa: E402

from models.manifest import MANIFEST_NAME, ModelDir, sha256_of  # noqa: E402

ASKED = ("steady.p50", "steady.cpu_ms_per_image")
LEAST_FOUND = 16 / 20
SPINNING = '''\
import time

import handler


class SpinningHandler(handler.ImageHandler):
    """The project's handler, and {spin_us} microseconds of CPU time more for each request."""

    def handle(self, data, context):
        replies = super().handle(data, context)
        end_ns = time.thread_time_ns() + {spin_us} * 1000 * len(data)
        while time.thread_time_ns() < end_ns:
            pass
        return replies
'''


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20, help="of each slow-down, with those before (default: 20)")
    parser.add_argument("--percent", type=float, action="append", help="of the p50 (default: 10 and 25)")
    parser.add_argument("--rounds", type=int, default=6, help="of each study (default: 6)")
    parser.add_argument("--slices", type=int, default=6, help="of 2 s of each side in a round (default: 6)")
    parser.add_argument("--rate", type=float, default=70, help="requests a second (default: 70)")
    parser.add_argument("--warm-up", type=float, default=5, help="seconds of load before the slices (default: 5)")
    parser.add_argument("--model", type=Path, default=Path("build/models/cnn"), help="folder of the model")
    parser.add_argument("--out", type=Path, default=Path("build/calibration"), help="for run directories and archives")
    parser.add_argument("--raw", type=Path, default=RAW / "known_slowdown.jsonl", help="raw table, continued")
    options = parser.parse_args()
    p50_ms = measured_p50_ms(options)
    print(f"p50 of TorchServe: {p50_ms:.2f} ms\n", flush=True)
    print(f"| raised by | study | question | rounds | ratio | 95 % interval | verdict |\n|{' --- |' * 7}", flush=True)
    for percent, study in missing(options):
        spin_us = round(10 * percent * p50_ms)
        model = slowed(ModelDir(options.model), spin_us, options.out / f"cnn-{spin_us}us")
        text = plan_of(f"slow-{percent:g}-{study}", study, options)
        design = {"slices": options.slices, "warm_up_s": options.warm_up}
        row = {"percent": percent, "study": study, "spin_us": spin_us, **design}
        row |= carried_out(text, options.out, model)
        append(options.raw, row)
        print(line(row, f"{percent:g} %", study), flush=True)
        print("\n".join(totals(rows_of(options.raw))), file=sys.stderr, flush=True)
    rows = rows_of(options.raw)
    print("\n" + "\n".join(totals(rows)))
    return 0 if all(good(rows, percent, question) for percent in percents(rows) for question in ASKED) else 1


def plan_of(name: str, seed: int, options: argparse.Namespace) -> str:
    return plan_text(name, "torchserve", seed, options.rounds, options.slices, options.rate, options.warm_up)


def measured_p50_ms(options: argparse.Namespace) -> float:
    """Median of the p50 of both sides of a study without a slow-down, which is the first line of the raw table."""
    rows = rows_of(options.raw)
    if not rows:
        append(options.raw, {"percent": 0, "study": 0, **carried_out(plan_of("slow-0", 1, options), options.out)})
        rows = rows_of(options.raw)
    numbers = [number for pair in rows[0]["rounds"]["steady.p50"] for number in pair if number is not None]
    if not numbers:
        raise SystemExit(f"the p50 could not be measured, because no run counts: remove {options.raw} and try again.")
    return statistics.median(numbers)


def missing(options: argparse.Namespace) -> Iterator[tuple[float, int]]:
    """The studies that are not in the raw table, slow-downs in turn."""
    there = {(row["percent"], row["study"]) for row in rows_of(options.raw)}
    for study in range(1, options.studies + 1):
        for percent in options.percent or [10.0, 25.0]:
            if (percent, study) not in there:
                yield percent, study


def slowed(model: ModelDir, spin_us: int, folder: Path) -> ModelDir:
    """A copy of the model whose archive spins, made with torch-model-archiver where it is not there yet."""
    if not (folder / MANIFEST_NAME).exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(model.path, folder, ignore=shutil.ignore_patterns("*.mar", MANIFEST_NAME))
        archive = write_archive(model, spin_us, folder)
        manifest = json.loads((model.path / MANIFEST_NAME).read_text())
        manifest["mar"] = {"path": archive.name, "sha256": sha256_of(archive), "size_bytes": archive.stat().st_size}
        (folder / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2))
    return ModelDir(folder)


def write_archive(model: ModelDir, spin_us: int, folder: Path) -> Path:
    source = model.verify("mar")
    stage = folder / "contents"
    with zipfile.ZipFile(source) as archive:
        archive.extractall(stage)
    (stage / "spinning.py").write_text(SPINNING.format(spin_us=spin_us))
    (stage / "tmp").mkdir()
    extra = ["handler.py", "preprocessing.py", "input.json", "warmup.png"]
    command = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", source.stem, "--version", "1.0"]
    command += ["--serialized-file", "network.pt", "--handler", "spinning.py", "--extra-files", ",".join(extra)]
    own = {**os.environ, "TMPDIR": str((stage / "tmp").resolve())}
    subprocess.run([*command, "--export-path", str(folder.resolve())], cwd=stage, env=own, check=True)
    shutil.rmtree(stage)
    return folder / source.name


def percents(rows: list[dict]) -> list[float]:
    return sorted({row["percent"] for row in rows} - {0})


def outcomes(rows: list[dict], percent: float, question: str) -> list[str]:
    return [row["verdicts"][question]["outcome"] for row in rows if row["percent"] == percent]


def good(rows: list[dict], percent: float, question: str) -> bool:
    """Side A is the fast one."""
    found = outcomes(rows, percent, question)
    return found.count("A") >= LEAST_FOUND * len(found) and "B" not in found


def totals(rows: list[dict]) -> list[str]:
    lines = []
    for percent in percents(rows):
        for question in ASKED:
            found = outcomes(rows, percent, question)
            counts = f"found in {found.count('A')} of {len(found)}, the wrong sign in {found.count('B')}"
            lines.append(f"{question}, raised by {percent:g} % of the p50: {counts}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
