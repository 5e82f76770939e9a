"""Runs by another lens: what they record, and with which lens they go on."""

import json

import numpy as np
import pytest
from sweeps import configure

import jaxlens
from jaxlens import errors
from jaxlens.store import verify
from jaxlens.sweep import run as sweep


@pytest.mark.long  # Interpreted, it compiles for a minute; tests/lens reads with it too.
def test_a_run_by_the_kernel_has_the_rows_of_the_tiled_one_and_says_so(
    tiny, texts, swept, tmp_path
):
    out = tmp_path / "out"
    part = {"corpus.limit": 600}
    assert sweep.run(configure(tiny, texts, out, **part, **{"lens.implementation": "pallas"}))
    assert json.loads((out / "RUN.json").read_text())["lens"]["implementation"] == "pallas"
    assert verify.verify(out).ok
    with jaxlens.open_run(out) as run, jaxlens.open_run(swept) as whole:
        assert len(run) == 600
        # The last document is cut, whose last token has another next one.
        for name in ("rank_input", "rank_final", "rank_next", "top_id"):
            equal = run[name][:590] == whole[name][:590]
            assert equal.mean() > 0.999, name
        for name in ("kl_final", "kl_input", "entropy", "logp_input", "kl_final_matched"):
            np.testing.assert_allclose(
                run[name][:590], whole[name][:590], atol=1e-5, rtol=1e-5, err_msg=name
            )
    # Who names no lens goes on with that of the run; who names another is refused.
    assert sweep.run(configure(tiny, texts, out, **part)).computed == 0
    with pytest.raises(errors.JaxlensError):
        sweep.run(configure(tiny, texts, out, **part, **{"lens.implementation": "tiled"}))
