"""Soak: the embedded line whole for an hour at 500 events/s; memory of each process, lag of each layer, differences.

make bench-soak ARGS="--minutes 60 --json FILE". Every ten seconds the line is asked as `make status` asks it, and each
process with its children for its memory (PSS: shared pages count once). Growth is judged after the first third.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench._line.hops import percentiles
from bench._line.rig import running, wait_until_all_is_there
from deploy.status.ask import ask
from streaming.sources.shop import season

if TYPE_CHECKING:
    from deploy.demo.line import Line
    from deploy.status.facts import Facts

EVERY_S = 10.0
WARM_UP_SHARE = 1 / 3


@dataclass
class Sample:
    """The line at one moment. Megabytes, events and seconds; None: that part did not answer in time."""

    at_s: float
    memory_mb: dict[str, float]
    unlanded: int | None
    mart_behind_s: float | None
    report_behind_s: float | None
    troubles: dict[str, str] = field(default_factory=dict)


def main() -> int:
    """Let it flow, sample, compare; 1 if a layer differs, an event is missing or a process has ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=500.0, help="events a second")
    parser.add_argument("--launcher", choices=["warm", "default"], default="warm")
    parser.add_argument("--json", type=Path, help="write all figures and samples here")
    options = parser.parse_args()
    with running(options.launcher) as (line, ledgers):
        samples, sent = _flow(line, options.rate, options.minutes * 60)
        caught_up_s = wait_until_all_is_there(line, ledgers, sent)
        facts = ask(_env(line), timeout_s=60)
        expected, mart = ledgers.mart()
        figures = {
            "minutes": options.minutes,
            "sent": sent,
            "landed": ledgers.landed(),
            "core": ledgers.core(),
            "core_less_repeats": expected,
            "mart": mart,
            "differing_days": list(facts.differing_days),
            "lost_offsets": facts.lost_offsets,
            "unaccounted": facts.unaccounted,
            "caught_up_s": round(caught_up_s, 1),
            "runs": ledgers.statuses(),
            **_summary(samples),
        }
    figures["is_whole"] = (
        figures["landed"] == figures["core"] == sent
        and mart == expected
        and not facts.differing_days
        and facts.lost_offsets == facts.unaccounted == 0
    )
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps({**figures, "samples": [asdict(each) for each in samples]}, indent=1) + "\n")
    return 0 if figures["is_whole"] else 1


def _flow(line: Line, rate: float, seconds: float) -> tuple[list[Sample], int]:
    asked = rate / (0.5 + min(season(datetime.now(UTC)), 2.0) / 2)
    arguments = ["--shop", "--rate", f"{asked:.3f}", "--seconds", str(seconds), "--broken", "0", "--json"]
    producer = line.spawn("producer", ["-m", "streaming", "produce", *arguments])
    began = time.monotonic()
    samples = []
    while producer.is_running():
        line.check()
        samples.append(_sample(line, time.monotonic() - began))
        _show(samples[-1], seconds)
        time.sleep(max(0.0, began + len(samples) * EVERY_S - time.monotonic()))
    return samples, _sent(producer.log.read_text(encoding="utf-8"))


def _sent(log: str) -> int:
    """Events that the producer says it has sent, in the last line that it wrote as JSON."""
    said = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    if not said or "sent" not in said[-1]:
        raise SystemExit(f"the producer ended without telling what it had sent:\n{log[-2000:]}")
    return int(said[-1]["sent"])


def _sample(line: Line, at_s: float) -> Sample:
    facts: Facts = ask(_env(line), timeout_s=EVERY_S)
    return Sample(
        at_s=round(at_s, 1),
        memory_mb={process.name: _memory_mb(process.pid) for process in line.processes()},
        unlanded=facts.unlanded,
        mart_behind_s=facts.mart_behind_s,
        report_behind_s=facts.report_behind_s,
        troubles=facts.troubles,
    )


def _env(line: Line) -> dict[str, str]:
    return {**line.env, "DAGSTER_URL": line.urls["Dagster"]}


def _memory_mb(pid: int) -> float:
    """PSS of a process and its children; 0: it has ended, or its memory may not be read."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue
    except psutil.Error:
        return 0.0
    return round(total / 2**20, 1)


def _summary(samples: list[Sample]) -> dict[str, Any]:
    """After the warm-up: memory as medians of the first and the last third of what is left, lag as percentiles.

    A process whose memory was never told has no ratio: None, not a growth of nothing.
    """
    judged = samples[int(len(samples) * WARM_UP_SHARE) :]
    names = sorted({name for each in judged for name in each.memory_mb} - {"producer"})
    memory = {}
    for name in names:
        values = [each.memory_mb[name] for each in judged if each.memory_mb.get(name)]
        third = max(1, len(values) // 3)
        first, last = _median(values[:third]), _median(values[-third:])
        memory[name] = {
            "first_mb": first,
            "last_mb": last,
            "most_mb": max(values, default=0.0),
            "ratio": round(last / first, 3) if first else None,
        }
    lags = {}
    for name in ("unlanded", "mart_behind_s", "report_behind_s"):
        third = max(1, len(judged) // 3)
        parts = [
            [float(v) for each in part if (v := getattr(each, name)) is not None]
            for part in (judged[:third], judged[-third:])
        ]
        lags[name] = {"first_third": percentiles(parts[0]), "last_third": percentiles(parts[1])}
    return {"memory": memory, "lags": lags, "unanswered": sum(len(each.troubles) for each in samples)}


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0.0


def _show(sample: Sample, seconds: float) -> None:
    """One line that stays where it is; a log gets one a minute."""
    text = (
        f"{sample.at_s / 60:5.1f} of {seconds / 60:.0f} min, {sum(sample.memory_mb.values()):,.0f} MB, "
        f"{sample.unlanded} unlanded, mart {sample.mart_behind_s} s behind, report {sample.report_behind_s} s"
    )
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)
    elif sample.at_s % 60 < EVERY_S:
        print(text, file=sys.stderr, flush=True)


def _ratio(ratio: float | None) -> str:
    return "not told" if ratio is None else f"{ratio:.2f}"


def table(found: dict[str, Any]) -> str:
    """What came of it, as Markdown."""
    head = (
        f"\n{found['minutes']:g} min, {found['sent']:,} events sent, landed {found['landed']:,}, core {found['core']:,}"
        f", mart {found['mart']:,} of {found['core_less_repeats']:,}; differing days {found['differing_days']}; "
        f"whole: {found['is_whole']}; runs {found['runs']}; parts that did not answer in time {found['unanswered']}"
    )
    lines = [head, "| memory, MB | after the warm-up | at the end | most | ratio |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {each['first_mb']:.0f} | {each['last_mb']:.0f} | {each['most_mb']:.0f} | {_ratio(each['ratio'])} |"
        for name, each in found["memory"].items()
    ]
    lines += ["| lag | p50 first third | p50 last third | p95 last third | most |", "|---|---|---|---|---|"]
    for name, each in found["lags"].items():
        first, last = each["first_third"], each["last_third"]
        if first and last:
            lines.append(f"| {name} | {first['p50']:g} | {last['p50']:g} | {last['p95']:g} | {last['max']:g} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
