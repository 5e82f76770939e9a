"""The table of peers in docs/performance.md and the README, from the newest record of `compare.py`.

python benchmarks/peers/table.py [--tokens 256] [--device cpu] [--write | --check]

Prints the section; `--write` puts it between the markers of the page, and four rows of it between
those of the README; `--check` exits with 1 where they are missing. A record of a busy machine is
never written.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORDS = ROOT / "benchmarks" / "results" / "peers.jsonl"
BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"
STARVED = 0.8
"""Least share of its threads that a candidate must have had on processors."""

LABELS = {
    "jaxlens": ("jaxlens", "jaxlens-logitlens"),
    "jaxlens-bfloat16": ("jaxlens, bfloat16 operands", "jaxlens-logitlens"),
    "pytorch-bfloat16": ("PyTorch, bfloat16 operands, in blocks", "torch"),
    "pytorch": ("PyTorch + transformers, in blocks", "torch"),
    "pytorch-whole": ("PyTorch + transformers, all logits at once", "torch"),
    "pytorch-onednn": ("PyTorch, its head by oneDNN", "torch"),
    "pytorch-compile": ("PyTorch, compiled", "torch"),
    "transformer-lens": ("TransformerLens", "transformer-lens"),
    "tuned-lens": ("tuned-lens", "tuned-lens"),
    "nnsight": ("nnsight", "nnsight"),
}

README_ROWS = ("jaxlens", "transformer-lens", "nnsight", "tuned-lens")


def main() -> None:
    """Prints, writes or checks the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, help="of the newest record by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--records", type=pathlib.Path, default=RECORDS)
    parser.add_argument("--page", type=pathlib.Path, default=ROOT / "docs" / "performance.md")
    parser.add_argument("--readme", type=pathlib.Path, default=ROOT / "README.md")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true")
    what.add_argument("--check", action="store_true")
    given = parser.parse_args()
    record = newest(read(given.records), given.device, given.tokens)
    if given.write and starving(record["measured"]):
        sys.exit("the newest record is of a busy machine, which slows some more than others")
    later = additions(read(given.records), record)
    texts = {
        given.page: section(record, added=later),
        given.readme: section(record, README_ROWS),
    }
    if not given.write and not given.check:
        print(texts[given.page])
        return
    for path, text in texts.items():
        if given.write:
            path.write_text(replaced(path.read_text(), text))
        elif text not in path.read_text():
            sys.exit(f"{path.name} does not have the table of the newest record; use --write")


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """All records, oldest first."""
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def newest(
    records: Sequence[dict[str, Any]], device: str = "cpu", tokens: int | None = None
) -> dict[str, Any]:
    """The last record of GPT-2 small on a device, with so many tokens where that matters."""
    fitting = [
        record
        for record in records
        if record["shape"] == "gpt2"
        and record["device"] == device
        and tokens in (None, record["tokens"])
        and "only" not in record
    ]
    if not fitting:
        sys.exit(f"no record of device {device}, tokens {tokens}; run compare.py")
    return fitting[-1]


def additions(
    records: Sequence[dict[str, Any]], record: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Peers that a record lacks, each with the newest record of some candidates only."""
    some = [one for one in records if "only" in one and one["shape"] == record["shape"]]
    return {
        name: one
        for one in some
        if one["device"] == record["device"]
        for name in one["measured"]
        if name not in record["measured"] and not name.startswith("jaxlens")
    }


def section(
    record: Mapping[str, Any],
    names: Sequence[str] = tuple(LABELS),
    added: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """The section with its markers, and a row for each of the candidates named.

    Args:
        record: Of `compare.py`.
        names: Candidates.
        added: More of them, each with another record, whose ratio alone can be compared.
    """
    measured = {name: row for name, row in record["measured"].items() if name in names}
    order = sorted(measured, key=lambda n: (not n.startswith("jaxlens"), -_rate(measured[n])))
    rows = [row(name, record["measured"]) for name in order]
    added = added or {}
    rows += [
        row(name, one["measured"], "tokens_per_processor_second") for name, one in added.items()
    ]
    head = "| | version | tokens/s | slowest to fastest | jaxlens is faster by | peak memory |"
    texts = [caption(record), *(caption_of_ratio(name, one) for name, one in added.items())]
    return "\n".join([BEGIN, head, "|---|---|---|---|---|---|", *rows, "", " ".join(texts), END])


def row(name: str, everybody: Mapping[str, Any], unit: str = "tokens_per_second") -> str:
    """One line of the table; who rounds operands is compared with jaxlens that does.

    Args:
        name: Candidate.
        everybody: What was measured of it and of jaxlens in the same rounds.
        unit: Of the ratio. The rate itself is only said where it is of the table's own rounds.
    """
    label, package = LABELS[name]
    measured, is_ours = everybody[name], name.startswith("jaxlens")
    ours = everybody["jaxlens-bfloat16" if "bfloat16" in name else "jaxlens"] if not is_ours else {}
    times = "" if is_ours else f"{ours[unit] / measured[unit]:.2f} ×"
    version = measured["versions"][package].partition("+")[0]
    peak = f"{measured['peak_bytes'] / 2**30:.1f} GiB"
    rate, spread = (
        f"{_rate(measured):,.0f}",
        f"{measured['slowest']:,.0f} to {measured['fastest']:,.0f}",
    )
    if unit != "tokens_per_second":
        rate, spread = "", ""
    return f"| {label} | {version} | {rate} | {spread} | {times} | {peak} |"


def caption_of_ratio(name: str, record: Mapping[str, Any]) -> str:
    """Where a ratio comes from that is not of the table's own rounds."""
    threads = record["measured"][name]["threads"]
    return (
        f"{LABELS[name][0]}: only the ratio, of processor time, in {record['rounds']} alternating "
        f"rounds with jaxlens of the same operands ({record['tokens']:,} tokens, {threads} "
        f"{'core' if threads == 1 else 'cores'}, other work beside it)."
    )


def caption(record: Mapping[str, Any]) -> str:
    """Where, when and how, how far the numbers agree, and whether the machine was at rest."""
    where = record["environment"]
    machine = f"{where['cores']} cores ({where.get('processor') or 'unknown'})"
    if record["device"] != "cpu":
        machine = ", ".join(device["kind"] for device in where["devices"])
    exact = {n: a for n, a in record["agreement"].items() if "bfloat16" not in n}
    lines = [f"{record['tokens']:,} tokens, {record['rounds']} alternating rounds, {machine}."]
    if exact:
        nats = max(a["worst_nats"] for a in exact.values())
        ranks = max(a["worst_rank"] for a in exact.values())
        same = min(a["same_ranks"] for a in exact.values())
        lines.append(
            f"In float32 all agree within {nats:.0e} nat; {same:.0%} or more of the ranks are "
            f"equal, none is off by more than {ranks:.0f}."
        )
    starved = starving(record["measured"])
    if record.get("note"):
        lines.append(f"Taken {record['note']}.")
    if starved:
        lines.append(f"The machine was not at rest: {', '.join(starved)} had too few threads.")
    return " ".join(lines)


def starving(measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Candidates whose threads were kept off the processors by something else."""
    return [n for n, row in measured.items() if row["busy_threads"] < STARVED * row["threads"]]


def replaced(page: str, text: str) -> str:
    """A page with the section between its markers replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"the page has no {BEGIN} ... {END}")
    return before + text + after


def _rate(measured: Mapping[str, Any]) -> float:
    return measured["tokens_per_second"]


if __name__ == "__main__":
    main()
