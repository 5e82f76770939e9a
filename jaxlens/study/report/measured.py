"""What was measured of a run beside its sweep: a linear probe, and an ablation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jaxlens import config, errors
from jaxlens.store import ablation_file, probe_file, reader
from jaxlens.study import inputs
from jaxlens.study.questions import ablation


@dataclass(frozen=True, eq=False)
class Measured:
    """Both, where the run has them.

    Attributes:
        probe: Of ``jaxlens probe``; None where there is none.
        ablation: Of ``jaxlens ablate``; None where there is none.
    """

    probe: probe_file.Probe | None
    ablation: ablation_file.Ablation | None


def read(run: reader.Run) -> Measured:
    """Reads what a run has; an ablation of another model or corpus is none of it.

    Raises:
        DataError: It is damaged.
    """
    found = None
    with contextlib.suppress(errors.ConfigError):
        found = ablation.load(inputs.run_info(run))
    return Measured(probe_file.read_of_run(run.path), found)


def provenance(found: Measured) -> Iterator[tuple[str, str]]:
    """Their settings and what they rest on: pairs of what and value."""
    if found.probe is not None:
        counts = ", ".join(f"{n:,} {_words(name)}" for name, n in found.probe.counts.items())
        yield "linear probe", f"{_settings(found.probe.spec, 'probe')}; {counts}"
    if found.ablation is not None:
        mean = f"mean stream over {found.ablation.notes.mean_positions:,} positions"
        yield "ablation", f"{_settings(found.ablation.spec, 'ablation')}; {mean}"


def _settings(spec: Mapping[str, Any], section: str) -> str:
    """The settings in a spec, and the sha256 of all of it."""
    known = {name: value for name, value in spec[section].items() if value is not None}
    words = [f"{_words(name)} {_value(value)}" for name, value in known.items()]
    return ", ".join([*words, f"sha256 {config.spec_hash(config.canonical(spec))}"])


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ")
