"""The schedule of a TPU's compiler: how often loops and regions under a condition count."""

import importlib
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"

# A branch over everything, a loop of 10 with a region that one of its branches can skip.
BUNDLES = """\
     0   : > { %1 = sbr.rel (%p1) target = $region9 }
  0x1 LB: > { %2 = vadd %a, %b }
  0x2   : > { %3 = sbr.rel (%p2) target = $region4 }
  0x3   : > { %4 = vmul %a, %b }
  0x4   : > { %5 = vmul %a, %b }
  0x5 PF: > { %6 = vmatmul %a, %b } /* Start/End empty region 4 */
  0x6   : > { %p7 = scmp.ge.s32.totalorder %i, 10 /* loop exit test */ }
  0x7 PF: > { %8 = vadd %a, %b } /* Start/End empty region 9 */
"""


@pytest.fixture
def schedule(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("tpu_schedule")


@pytest.mark.parametrize(("share", "cycles"), [(1.0, 62), (0.5, 52), (0.0, 42)])
def test_a_region_without_multiplies_counts_as_often_as_said(schedule, share, cycles):
    assert schedule.count_cycles(BUNDLES, share) == (cycles, True)


def test_a_loop_of_unknown_length_is_counted_once_and_told(schedule):
    assert schedule.count_cycles(BUNDLES.replace("%i, 10", "%i, %n")) == (8, False)
