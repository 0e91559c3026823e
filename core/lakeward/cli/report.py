"""What a pipeline has done so far, out of its state."""

from __future__ import annotations

from typing import Any

from lakeward.cli.rereading import summary
from lakeward.cli.table import table
from lakeward.state import State


def report(state: State) -> dict[str, Any]:
    """Rows by fate, by sink, by rule; what waits; where it went on."""
    totals, waiting, checkpoint = state.totals(), state.waiting(), state.checkpoint()
    rows = {kind: totals.get("rows", {}).get(kind, 0) for kind in ("read", "delivered", "filtered", "dead")}
    rows |= {"held": held} if (held := totals.get("rows", {}).get("held", 0)) else {}  # only some pipelines hold rows back
    receipts = {receipt["sink"]: receipt for receipt in state.receipts()}
    sinks = {
        name: {
            "rows": spooled,
            "delivered": totals.get("delivered", {}).get(name, 0),
            "waiting": waiting.get(name, (0, 0))[1],
            "refused": totals.get("refused", {}).get(name, 0),
            "location": receipts.get(name, {}).get("location", ""),
        }
        for name, spooled in totals.get("spooled", {}).items()
    }
    return {
        "state_dir": str(state.directory),
        "position": summary(checkpoint.position) if checkpoint and checkpoint.position else None,
        "epoch": checkpoint.epoch if checkpoint else None,
        "batches": checkpoint.sequence if checkpoint else 0,
        "rows": rows,
        "reconciled": rows["read"] == sum(count for fate, count in rows.items() if fate != "read"),
        "sinks": sinks,
        "filtered": totals.get("filtered", {}),
        "dead_letters": [{"stage": stage, "reason": reason, "rows": count} for (stage, reason), count in state.letters.counts().items()],
        "troubles": state.troubles(),
        "events": state.events(10),
    }


def in_words(found: dict[str, Any]) -> str:
    """The same for people."""
    rows = found["rows"]
    sign = "=" if found["reconciled"] else "≠"
    fates = f"{rows['delivered']:,} delivered + {rows['filtered']:,} filtered + {rows['dead']:,} dead letters"
    held = f" + {rows['held']:,} held back until their next ones come" if "held" in rows else ""
    lines = [f"{rows['read']:,} rows read {sign} {fates}{held}"]
    if found["sinks"]:
        columns = ("rows", "delivered", "waiting", "refused", "location")
        cells = [(name, *(sink[column] for column in columns)) for name, sink in found["sinks"].items()]
        lines += ["", table(("sink", *columns), cells, fit=True)]
    if found["filtered"]:
        lines += ["", table(("filtered by", "rows"), list(found["filtered"].items()))]
    if found["dead_letters"]:
        lines += ["", table(("dead letters from", "reason", "rows"), [tuple(one.values()) for one in found["dead_letters"]])]
    if found["troubles"]:
        lines += ["", *(f"does not work now: {part}: {problem}" for part, problem in found["troubles"].items())]
    if found["events"]:
        told = [name for name in ("kind", "origin", "detail") if any(event[name] for event in found["events"])]
        lines += ["", table(("newest events", *told), [[event[name] for name in ("at", *told)] for event in found["events"]])]
    return "\n".join(lines)
