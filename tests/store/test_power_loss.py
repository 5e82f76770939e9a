"""Legal states of the disk after a power loss, enumerated from the recorded system calls."""

import collections
import shutil

import pytest
from store import example, faults, power, remember

# Times that fates are drawn file by file, beside one fate for all, and the states to be met.
DRAWS = [(1, 600), pytest.param(110, 5000, marks=pytest.mark.long)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    out = tmp_path_factory.mktemp("expected")
    faults.write(out)
    return example.tree(out)


@pytest.mark.parametrize(("draws", "states"), DRAWS)
def test_no_power_loss_takes_a_promised_shard_or_lets_damage_pass(
    scratch, monkeypatch, expected, draws, states
):
    remember.patch(monkeypatch)
    found = collections.Counter()
    (scratch / "recorded").mkdir()
    for state, promised in power.states(power.record(scratch / "recorded"), draws):
        found[power.harm(scratch / "lost", state, promised, expected)] += 1
        shutil.rmtree(scratch / "lost")
    assert found == {"": found.total()} and found.total() >= states
