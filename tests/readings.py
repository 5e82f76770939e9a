"""Readouts of a lens compared with those of the float64 oracle."""

import numpy as np
import oracle

# Rounding of float32 logits of size |z| through sums of a few hundred terms.
ABSOLUTE, RELATIVE, OF_LOGITS = 1e-5, 1e-5, 1e-6
# Logits nearer than this in float64 may swap in float32.
NEAR_TIE = 1e-4
# bfloat16 operands keep 8 bits: a logit that sums 24 products of order 1 is off by about
# sqrt(24) * 2**-9 = 0.01; divergences sum several of them.
BFLOAT16 = 0.06


def expect(case, top_k=3, gap=NEAR_TIE):
    return oracle.lens(
        case.residuals, case.unembed, case.references, top_k, gap, case.unembed.temperature
    )


def assert_close(got, expected, names, absolute=ABSOLUTE, gap=NEAR_TIE, size=0.0):
    for name in names:
        value, want = got[name], expected[name]
        assert value.shape == want.shape, name
        if name.startswith("rank"):
            low, high = expected[f"{name}_low"], expected[f"{name}_high"]
            ok = (value == want) | ((low <= value) & (value <= high) & (want > 0))
        elif name == "top_id":
            ok = (value == want) | _tied(expected, value, want, gap)
        elif name.startswith("ties"):
            ok = value == want
        else:
            assert np.array_equal(np.isnan(value), np.isnan(want)), name
            bound = absolute + RELATIVE * np.abs(want) + OF_LOGITS * size
            ok = ~(np.abs(value - want) > bound)
        assert ok.all(), (name, value[~ok], want[~ok])


def _tied(expected, value, want, gap):
    """Whether another top token is within the gap of the one that float64 names."""
    if value.shape[-1] == 1:
        return (expected["top_gap"][..., None] < gap) & (value >= 0)
    close = np.abs(np.diff(expected["top_logp"], axis=-1)) < gap
    near = np.zeros(value.shape, bool)
    near[..., :-1] |= close
    near[..., 1:] |= close
    near[..., -1] = True  # what comes after the last is not known here
    return near & (value >= 0) & (want >= 0)
