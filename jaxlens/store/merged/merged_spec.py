"""The spec of merged runs: what their specs have in common, and what the runs add up to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlens import config, designs, errors
from jaxlens.store import spec_difference, specs, token_counts_file, type_means_file
from jaxlens.tally import definitions

_OF_CORPUS = ("sha256", "index_sha256", "n_tokens", "n_documents", "skipped")
_OF_PLAN = ("n_steps", "n_shards", "steps_per_shard")
_DEFAULT = "merge runs that were swept with the same settings"
_HINTS = {
    "token_counts.sha256": "rarity is by these counts: sweep all runs with the same --token-counts",
    "model.sha256": "merge runs of one model",
}

Named = tuple[str, Mapping[str, Any]]
"""A run's directory, for messages, and its spec."""


def is_merged(spec: Mapping[str, Any]) -> bool:
    """Whether a spec is that of merged runs."""
    return specs.MERGED in spec


def runs(spec: Mapping[str, Any]) -> list[str]:
    """Spec hashes of the runs that were merged, in their order; none of a run that was swept."""
    return list(spec.get(specs.MERGED, {}).get("runs", ()))


def require_fields(run_dir: str, spec: Mapping[str, Any]) -> None:
    """Refuses a run whose spec lacks what merging needs.

    Args:
        run_dir: Run, for the message.
        spec: Its spec.

    Raises:
        ConfigError: It is no sweep of a corpus.
    """
    needed = {"corpus": _OF_CORPUS[:4], "plan": _OF_PLAN}
    for name in ("format_version", "store", *needed):
        if name not in spec or any(spec[name].get(one) is None for one in needed.get(name, ())):
            raise errors.ConfigError(
                f"{run_dir} is no sweep of a corpus: its spec lacks {name}, or parts of it",
                "merge runs that jaxlens run made",
            )


def require_alike(named: Sequence[Named]) -> None:
    """Refuses runs whose specs differ in more than the corpus.

    Args:
        named: The runs.

    Raises:
        ConfigError: Naming the first difference and its two values, or a corpus that is there
            twice.
    """
    (first_dir, first), *others = named
    for run_dir, spec in named:
        if (kind := spec["corpus"].get("kind", designs.TEXT)) in designs.CORPORA:
            raise errors.ConfigError(
                f"{run_dir} is of {kind}, which is made and has no parts",
                "sweep a larger one: jaxlens run --limit",
            )
    for run_dir, spec in others:
        difference = spec_difference.first(_fixed(first), _fixed(spec))
        if difference is not None:
            key, ours, theirs = difference
            raise errors.ConfigError(
                f"{first_dir} and {run_dir} differ in more than the corpus: {key} is {ours} "
                f"and {theirs}",
                _hint(key, first),
            )
    _refuse_same_tokens(named)


def _hint(key: str, spec: Mapping[str, Any]) -> str:
    if key == "lens.temperatures":
        return (
            "kl_final_matched is at these temperatures: sweep the others at those of one, "
            f"--set 'lens.temperatures={spec['lens']['temperatures']}'"
        )
    return _HINTS.get(key, _DEFAULT)


def _refuse_same_tokens(named: Sequence[Named]) -> None:
    seen: dict[str, str] = {}
    for run_dir, spec in named:
        digest = spec["corpus"]["sha256"]
        if digest in seen:
            raise errors.ConfigError(
                f"{seen[digest]} and {run_dir} are of the same tokens", "name each corpus once"
            )
        seen[digest] = run_dir


def _fixed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal of a spec."""
    fixed = {name: section for name, section in spec.items() if name != type_means_file.SECTION}
    fixed["corpus"] = _without(spec["corpus"], _OF_CORPUS)
    fixed["plan"] = _without(spec["plan"], _OF_PLAN)
    fixed["store"] = _without(spec["store"], ("shard_tokens",))
    return fixed


def _without(section: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in names}


def kept_tallies(named: Sequence[Named]) -> str:
    """The set of tallies that merged runs keep.

    Those of the study sort positions by rarity, so they add up only where rarity is by the same
    counts. Where it is not, they are left out if the study can fold them from rows.

    Args:
        named: The runs, which are alike.

    Raises:
        ConfigError: They would be lost.
    """
    run_dir, spec = named[0]
    kept = spec["store"].get("tallies", "basic")
    if kept not in definitions.STUDY_EDITIONS or token_counts_file.FILE.recorded(spec) is not None:
        return kept
    if spec["store"].get("rows") == "full":
        return "basic"
    raise errors.ConfigError(
        f"{run_dir} and the others have tallies by rarity in their own text, which do not add up",
        "sweep all of them with the same --token-counts, the counts of all parts together",
    )


def build(named: Sequence[Named], hashes: Sequence[str], more: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of merged runs.

    Args:
        named: The runs, which are alike, in their order.
        hashes: Their spec hashes.
        more: Further facts of the merged run.
    """
    each = [spec for _, spec in named]
    document = {key: value for key, value in each[0].items() if key != type_means_file.SECTION}
    of_corpus = [spec["corpus"] for spec in each]
    skipped: dict[str, int] = {}
    for part in of_corpus:
        for reason, count in part.get("skipped", {}).items():
            skipped[reason] = skipped.get(reason, 0) + count
    document["corpus"] = dict(each[0]["corpus"]) | {
        **{name: _digest([part[name] for part in of_corpus]) for name in _OF_CORPUS[:2]},
        **{name: sum(part[name] for part in of_corpus) for name in _OF_CORPUS[2:4]},
        "skipped": skipped,
    }
    plans = [spec["plan"] for spec in each]
    document["plan"] = dict(plans[0]) | {
        **{name: sum(plan[name] for plan in plans) for name in _OF_PLAN[:2]},
        "steps_per_shard": max(plan["steps_per_shard"] for plan in plans),
    }
    sizes = [spec["store"].get("shard_tokens") for spec in each]
    document["store"] = dict(each[0]["store"]) | {
        "shard_tokens": sizes[0] if len(set(sizes)) == 1 else None,
        "tallies": kept_tallies(named),
    }
    document[specs.MERGED] = {"runs": list(hashes), **more}
    return document


def _digest(hashes: Sequence[str]) -> str:
    """One hash of several, in their order."""
    return hashlib.sha256(config.canonical({"sha256": list(hashes)})).hexdigest()
