"""A corpus, its parts, and the runs over them, for tests of merging."""

import json

import numpy as np
from sweeps import EVERYTHING, configure

from jaxlens.sweep import run
from jaxlens.tally import axes, definitions, sampling

NAMES = ("a", "b", "c")
BASIC = {"store.rows": "core", "store.shard_tokens": 1024}
# One shard each: it holds megabytes of tallies.
STUDIED = EVERYTHING | {"store.shard_tokens": 8192}
NO_ROWS = {"store.rows": "none"}
# Places of tallies that tokens drawn from other documents of the same run have a part in.
DRAWN = {
    "reference": "foreign",
    "quantity": "rank_foreign",
    "measure": "rank_foreign",
    "compared": "foreign",
}


def write_texts(folder, texts):
    """The lines of the corpus, and of its parts: cut between documents, all of which differ."""
    lines = [
        line.replace('"text": "', f'"text": "{number} ')
        for number, line in enumerate(texts.read_text().splitlines())
    ]
    parts = {"whole": lines, "a": lines[:22], "b": lines[22:41], "c": lines[41:]}
    parts["rest"] = parts["b"] + parts["c"]
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(part) + "\n")


def sweep(tiny, folder, name, text=None, **more):
    """Sweeps a text of the folder."""
    how = configure(tiny, folder / f"{text or name}.jsonl", folder / name, **more)
    assert run.run(how).finished
    return folder / name


def counts(folder):
    """The setting by which rarity is that of all parts."""
    return {"token_counts": [str(folder / name) for name in NAMES]}


def make(tiny, texts, folder):
    """Runs of basic totals over a corpus and three parts; of study tallies over two, as many more
    without rows."""
    folder.mkdir()
    write_texts(folder, texts)
    for name in ("whole", *NAMES):
        sweep(tiny, folder, name, **BASIC)
    for name in ("whole", "a", "rest"):
        sweep(tiny, folder, f"study-{name}", name, **STUDIED, **counts(folder))
    means = {"type_means": str(folder / "study-whole")}
    for name in ("a", "rest"):
        sweep(tiny, folder, f"none-{name}", name, **STUDIED | NO_ROWS, **counts(folder), **means)


def canonical(folder, names=NAMES):
    """Runs in the order of merged rows: by the hash of their tokens."""
    spec = {name: json.loads((folder / name / "RUN.json").read_bytes()) for name in names}
    return sorted(names, key=lambda name: spec[name]["corpus"]["sha256"])


def without_drawn(name, total):
    """A tally without what depends on tokens drawn from other documents; None of those alone."""
    if name.startswith("foreign_"):
        return None
    total = total.copy()
    for place, axis in enumerate(definitions.BY_NAME[name].axes):
        if axis in DRAWN:
            line = axes.AXIS_LABELS[axis].index(DRAWN[axis])
            np.moveaxis(total, place, 0)[line] = 0
    return total


def numbered(lines, number):
    """Sampled rows with other numbers of documents, in an order of their own."""
    held = lines[lines[:, 0] != sampling.NO_KEY].copy()
    held[:, 1] = number[held[:, 1]]
    return held[np.lexsort((held[:, 1], held[:, 0]))]


def tree(folder):
    """All files of a merged run."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
