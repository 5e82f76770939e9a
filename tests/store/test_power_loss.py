"""Every legal state of the disk after a power loss, enumerated from the recorded system calls."""

import collections
import shutil

import pytest
from store import example, faults, power, remember

DRAWS = 110
"""Times that fates are drawn file by file; enough for the 5,000 states that the store promises."""


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    out = tmp_path_factory.mktemp("expected")
    faults.write(out)
    return example.tree(out)


def test_no_power_loss_takes_a_promised_shard_or_lets_damage_pass(scratch, monkeypatch, expected):
    remember.patch(monkeypatch)
    found = collections.Counter()
    (scratch / "recorded").mkdir()
    for state, promised in power.states(power.record(scratch / "recorded"), DRAWS):
        found[power.harm(scratch / "lost", state, promised, expected)] += 1
        shutil.rmtree(scratch / "lost")
    assert found == {"": found.total()} and found.total() >= 5000
