"""Public functions refuse wrong arguments with errors of ours, each with a hint."""

import functools
import warnings

import checkpoints
import numpy as np
import pytest

import jaxlens
from jaxlens import errors
from jaxlens.models import gpt2

LONE = "é\ud800"
"""A text that no file can be called, and no UTF-8 can hold."""

WRONG = {
    "None": None,
    "5": 5,
    "-1": -1,
    "1.5": 1.5,
    "object": object(),
    "bytes": b"x",
    "text": "x",
    "list": [],
    "list of None": [None],
    "list of lists": [[1, 2]],
    "dict": {},
    "dict of 1": {"a": 1},
    "set": set(),
    "nan": np.nan,
    "surrogate": LONE,
    "NUL": "a\0b",
    "array of no axes": np.array(5),
    "array": np.zeros((2, 2)),
    "int8": np.int8(3),
    "slice": slice(2),
}

CALLS = {
    "load_model": ("source", "dtype", "config", "revision", "tokenizer"),
    "weights": ("config",),
    "residuals": ("model", "tokens", "precision"),
    "read_lens": (
        *("model", "tokens", "mask", "decoder", "top_k", "quantities", "follow", "layers"),
        *("precision", "implementation"),
    ),
    "read_residuals": (
        *("residuals", "unembed", "tokens", "mask", "quantities", "follow", "layers"),
        *("implementation", "seed", "tokenizer", "check"),
    ),
    "log_probs": ("model", "tokens", "layer", "decoder"),
    "read_prompts": (
        *("model", "prompts", "answers", "positions", "layers", "difference", "leading_space"),
        *("bos", "metadata", "strict", "decoder", "progress"),
    ),
    "read_prompt": ("prompt", "answer", "column"),
    "open_run": ("path",),
    "run_sweep": ("config",),
    "table": ("cluster", "rows", "answers"),
    "readout": ("metric", "line", "path", "start", "stop", "ax", "figsize", "title", "wrap"),
    "compare": ("other", "line", "other_line", "names", "relative_depth"),
    "comparison": ("name", "metric", "path", "start"),
    "run": ("name", "contains", "rows"),
    "to_pandas": ("names", "start", "stop", "layers", "limit"),
    "to_xarray": ("names", "masked"),
    "batches": ("names", "rows", "start", "stop"),
}


@pytest.fixture(scope="module")
def calls(tiny, swept):
    """Each function as one of a single argument by name; everything else is right."""
    model = jaxlens.load_model(tiny)
    tokens = np.array([[1, 2, 3, 4], [1, 2, 5, 6]])
    streams = jaxlens.residuals(model, tokens)
    head = gpt2.unembed(model.params, model.config)
    table = jaxlens.read_prompts(model, ["a b", "c"], ["d", "e"], metadata={"kind": ["u", "v"]})
    readout = jaxlens.read_lens(model, tokens)
    compared = readout.compare(readout, 0, 1)
    run = jaxlens.open_run(swept)

    def usual(function, **right):
        return lambda name, value: function(**{**right, name: value})

    def by_name(**functions):
        return lambda name, value: functions[name](value)

    return {
        "load_model": usual(jaxlens.load_model, source=tiny),
        "weights": usual(functools.partial(jaxlens.load_model, {"wte": np.zeros((3, 3))})),
        "residuals": usual(jaxlens.residuals, model=model, tokens=tokens),
        "read_lens": usual(jaxlens.read_lens, model=model, tokens=tokens),
        "read_residuals": usual(
            jaxlens.read_residuals, residuals=streams, unembed=head, tokens=tokens
        ),
        "log_probs": usual(jaxlens.log_probs, model=model, tokens=tokens, layer=0),
        "read_prompts": usual(jaxlens.read_prompts, model=model, prompts=["a b", "c"]),
        "read_prompt": by_name(
            prompt=lambda value: jaxlens.read_prompts(model, [value]),
            answer=lambda value: jaxlens.read_prompts(model, ["a"], [value]),
            column=lambda value: jaxlens.read_prompts(model, ["a"], metadata={"kind": value}),
        ),
        "open_run": usual(jaxlens.open_run),
        "run_sweep": usual(jaxlens.run_sweep),
        "table": by_name(
            cluster=table.summary,
            rows=lambda value: table[value],
            answers=lambda value: table.answers[value],
        ),
        "readout": usual(readout.plot),
        "compare": usual(readout.compare, other=readout),
        "comparison": by_name(
            name=compared.difference,
            metric=compared.html,
            path=lambda value: compared.plot(path=value),
            start=lambda value: compared.part(value, None),
        ),
        "run": by_name(
            name=lambda value: run[value],
            contains=lambda value: value in run,
            rows=lambda value: run["rank_input"][value],
        ),
        "to_pandas": usual(run.to_pandas),
        "to_xarray": usual(run.to_xarray),
        "batches": usual(lambda **given: list(run.batches(**given))),
    }


# Where some of the values are right, and a program is compiled or a figure drawn for each.
SLOW = {
    *("read_lens.follow", "read_lens.layers", "read_lens.tokens", "read_lens.top_k"),
    *("read_prompts.layers", "read_residuals.follow", "read_residuals.layers"),
    *("readout.line", "readout.title"),
}
PLACES = [f"{name}.{one}" for name, several in CALLS.items() for one in several]
assert set(PLACES) >= SLOW


@pytest.mark.parametrize(
    "place", [pytest.param(one, marks=[pytest.mark.long] * (one in SLOW)) for one in PLACES]
)
def test_public_functions_refuse_wrong_arguments_with_our_errors(calls, place):
    function, _, name = place.partition(".")
    refused = 0
    for value in WRONG.values():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a data frame may be cut
                calls[function](name, value)
        except errors.JaxlensError as error:
            assert error.message and error.hint, value
            assert type(error).exit_code != 1
            refused += 1
    assert refused >= (0 if name == "contains" else 5)


def test_rows_beyond_the_end_are_an_index_error_too_so_that_loops_end(calls, swept):
    run = jaxlens.open_run(swept)
    assert sum(1 for _ in run["rank_input"]) == run.n_rows
    for kind in (IndexError, errors.ConfigError):
        with pytest.raises(kind, match="no such rows"):
            run["rank_input"][run.n_rows]


def test_whole_numbers_of_numpy_are_whole_numbers(tiny):
    model = jaxlens.load_model(tiny)
    tokens = np.array([[1, 2, 3, 4]])
    streams, head = jaxlens.residuals(model, tokens), gpt2.unembed(model.params, model.config)
    for seed in (np.int8(3), np.uint16(3)):
        found = jaxlens.read_residuals(streams, head, tokens, seed=seed)
        expected = jaxlens.read_residuals(streams, head, tokens, seed=3)
        np.testing.assert_array_equal(found.rank_foreign, expected.rank_foreign)
    one = jaxlens.read_lens(model, tokens, layers=np.array(1))
    assert one.labels.layers == (1,)


class Wrapped:
    """What ``torch.nn.DataParallel`` makes of a model."""

    def __init__(self, module):
        self.module = module

    def state_dict(self):
        return {f"module.{name}": value for name, value in self.module.state_dict().items()}


class Plain:
    def __init__(self, state, config):
        self._state, self.config = state, config

    def state_dict(self):
        return self._state


def test_model_inside_data_parallel_brings_its_configuration():
    _, params = checkpoints.make()
    inner = Plain(checkpoints.torch_state(params), checkpoints.CONFIG)
    assert jaxlens.load_model(Wrapped(Wrapped(inner))).config.n_layer == 2
    with pytest.raises(errors.ConfigError, match="needs its config"):
        jaxlens.load_model(Wrapped(Plain(checkpoints.torch_state(params), None)))


def test_path_in_place_of_a_configuration_is_told_from_a_damaged_one(tmp_path):
    _, params = checkpoints.make()
    state = checkpoints.torch_state(params)
    with pytest.raises(errors.ConfigError, match="not the configuration itself") as caught:
        jaxlens.load_model(state, config=str(tmp_path / "config.json"))
    assert "json.load" in caught.value.hint
