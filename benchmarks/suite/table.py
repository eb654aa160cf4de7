"""The run's figures as rows of text, and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_Rows = list[tuple[str, str]]


def _one(told: dict[str, Any]) -> _Rows:
    return [
        *((f"MB/s, {what}", f"{rate / 1e6:.0f}") for what, rate in told["bytes_per_second"].items()),
        *((what, _ratio(ratio)) for what, ratio in told["ratio"].items()),
        *((f"CPU s/GB, {what}", f"{seconds:.2f}") for what, seconds in told["cpu_seconds_per_gb"].items()),
    ]


def _many(told: dict[str, Any]) -> _Rows:
    each, memory = told["ratio_to_one"].items(), told["rss_mib_per_active_upload"].items()
    return [
        *((f"{count} uploads at once / one", _ratio(ratio)) for count, ratio in each),
        *((f"RSS MiB per active upload, {count} at once", f"{mib:.1f}") for count, mib in memory),
    ]


def _unary(told: dict[str, Any]) -> _Rows:
    found: _Rows = []
    for side in ("ours", "naive"):
        each = told[side]
        for when in ("idle", "loaded"):
            text = " / ".join(str(each[f"{when}_{what}_ms"]) for what in ("p50", "p99", "max"))
            found.append((f"GetIngest ms p50 / p99 / max, {when}, {side}", text))
        found.append((f"  p99 under load / idle, {side}", str(each["p99_loaded_to_idle"])))
        found += [(f"  loop's longest stall s, histogram, {side}", _loop(loop)) for loop in each["loop"]]
    return [*found, ("GetIngest p99 under load, naive / ours", str(told["p99_loaded_naive_to_ours"]))]


def _to_ready(told: dict[str, Any]) -> _Rows:
    ways = told["ratio_to_http"].items()
    return [(f"file to READY, {way} / http", f"{r:.2f}  {_each(told['seconds'][way])} s") for way, r in ways]


def _again(told: dict[str, Any]) -> _Rows:
    sent = f"{told['ratio']:.3f}  sent {told['bytes_sent_to_ollama_again']} bytes"
    return [("re-push of a known model / first push", sent)]


def _after_a_kill(told: dict[str, Any]) -> _Rows:
    return [
        ("resume after a kill, s to 1 MiB durable", _each(told["resume_seconds"])),
        ("  / hashing the committed bytes first", f"{told['resume_to_reading_it_all_again']:.3f}"),
    ]


def _workers(told: dict[str, Any]) -> _Rows:
    names = {
        "mb_per_second": "MB/s",
        "server_cpu_seconds_per_gb": "CPU s/GB",
        "unary_p50_ms": "unary p50 ms",
        "unary_p99_ms": "unary p99 ms",
    }
    return [
        (f"{names[what]}, 1 and 2 workers, {clients}", "  ".join(_each(runs) for runs in both))
        for clients, each in told.items()
        for what, both in each.items()
    ]


_SECTIONS = {
    "one": _one,
    "many": _many,
    "unary": _unary,
    "to_ready": _to_ready,
    "again": _again,
    "after_a_kill": _after_a_kill,
    "workers": _workers,
}


def rows(told: dict[str, Any]) -> _Rows:
    """What and how much, in the order in which docs/performance.md explains them."""
    return [row for name, section in _SECTIONS.items() if name in told for row in section(told[name])]


def text(told: dict[str, Any]) -> str:
    """The table."""
    lines = rows(told)
    width = max((len(what) for what, _ in lines), default=0)
    return "\n".join(f"{what:<{width}}  {value}" for what, value in lines)


def _ratio(ratio: dict[str, Any]) -> str:
    return f"{ratio['median']:.2f}  {_each(ratio['rounds'])}"


def _each(values: list[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _loop(loop: dict[str, Any]) -> str:
    return f"{loop.get('longest_seconds')}  {loop.get('histogram')}" if loop else "unknown"


def plot(told: dict[str, Any], path: Path) -> bool:
    """Bars of the ratios; False where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    ratios: dict[str, float] = {}
    if "one" in told:
        ratios |= {what: ratio["median"] for what, ratio in told["one"]["ratio"].items()}
    if "many" in told:
        each = told["many"]["ratio_to_one"].items()
        ratios |= {f"{count} uploads / one": ratio["median"] for count, ratio in each}
    if "to_ready" in told:
        each = told["to_ready"]["ratio_to_http"].items()
        ratios |= {f"to READY, {way} / http": ratio for way, ratio in each}
    figure = Figure(figsize=(10, 0.4 * len(ratios) + 1.5), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(ratios), list(ratios.values()), color="#3b6ea5")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_title("ratios of figures taken in turns in one run")
    figure.savefig(path, dpi=120)
    return True
