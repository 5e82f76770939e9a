"""``make check-gpt2`` against the packaged model in the place of GPT-2, in the hub's cache."""

import json
import shutil
import types

import check_gpt2
import hub_files
import numpy as np
import oracle
import pyarrow as pa
import pyarrow.parquet
import pytest
import tokenizers
import warm
from sweeps import PACKAGED

from jaxlens import errors
from jaxlens.corpus.synthetic import templates
from jaxlens.models.checkpoints import checkpoint

LINES = ["", " = Plasma = \n", "", " Sometimes, when people say plasma, they mean blood . \n"] * 12
DRIVER = """
import contextlib, io, json, os, sys
environment, expectations = map(json.loads, sys.argv[1:3])
os.environ.update(environment)
# Nearly all of the time is compilation.
os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
import check_gpt2
from jaxlens.lens import identity
for number, given in enumerate(expectations):
    if number == 2:
        identity.LIMITS["float32"] = -1.0
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = check_gpt2.table(["gpt2"], {"gpt2": check_gpt2.Expected(**given)})
        code = check_gpt2.status(found)
    rows = [[check.check, check.measured, check.ok] for check in found]
    print(json.dumps([code, rows, out.getvalue(), err.getvalue()]))
"""


@pytest.fixture(scope="module")
def truth():
    """What the oracle measures."""
    loaded = checkpoint.load(PACKAGED)
    params, config = loaded.params, loaded.architecture
    tokenizer = tokenizers.Tokenizer.from_file(str(PACKAGED / "tokenizer.json"))
    ids = np.array(tokenizer.encode("\n\n".join(LINES)).ids)
    length = config.n_positions
    assert length + 1 < len(ids) < 2 * length  # a whole window and a part of one
    head = types.SimpleNamespace(
        scale=params["ln_f"]["scale"],
        bias=params["ln_f"]["bias"],
        **{"eps": 1e-5, "weight": params["wte"], "output_bias": None, "kind": "final_norm"},
    )
    losses = []
    for start in range(0, len(ids), length):
        window = ids[start : start + length]
        streams = oracle.residuals(params, config, window[None])
        log_p = oracle.log_softmax(oracle.logits(streams[-1:], head))[0, 0]
        losses += [-log_p[at, token] for at, token in enumerate(window[1:])]
        if start == 0:
            norms = np.sqrt((streams[:, 0, 1:] ** 2).sum(-1)).mean(-1)
    products = params["wte"].astype(float) @ params["ln_f"]["bias"].astype(float)
    prompt = np.array(tokenizer.encode(templates.POST).ids)
    streams = oracle.residuals(params, config, prompt[None])
    ranks = {}
    for head.kind in ("final_norm", "plain"):
        z = oracle.logits(streams, head)[:, 0]
        ranks[head.kind] = oracle.rank(z, np.full(z.shape[:-1], prompt[-1]))
    return {
        "greeting": tokenizer.encode("Hello world").ids,
        "perplexity": np.exp(np.mean(losses)),
        "bias_tokens": [tokenizer.decode([token]) for token in np.argsort(-products)[:4].tolist()],
        "plasma": ranks["final_norm"][-4:, -2].tolist(),
        "as input": ranks["final_norm"][-4:, -1].tolist(),
        "plain": int(ranks["plain"][-2, -2]),
        "growth": np.exp(np.diff(np.log(norms[1:])).mean()),
        "growth from the embedding": np.exp(np.diff(np.log(norms)).mean()),
    }


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The hub's cache with both repositories."""
    root = tmp_path_factory.mktemp("hub")
    shutil.copytree(PACKAGED, root / "model")
    repository, file = check_gpt2.WIKITEXT
    (root / "data" / file).parent.mkdir(parents=True)
    pa.parquet.write_table(pa.table({"text": LINES}), root / "data" / file)
    hub_files.cache(root / "home", repository, root / "data", kind="datasets")
    return hub_files.cache(root / "home", "gpt2", root / "model")


def test_measured_values_are_those_of_the_oracle_and_failures_are_named(truth, environment):
    near = {
        "greeting": truth["greeting"],
        "perplexity": truth["perplexity"] * 1.004,
        "paper": truth["perplexity"] * 0.93,
        "paper_103": 1.0,
        "bias_tokens": truth["bias_tokens"],
        "plasma": truth["plasma"],
        "plain_above": truth["plain"] - 1,
        "growth": [truth["growth"] - 1e-5, truth["growth"] + 1e-5],
    }
    # The identity gate is made to fail for the last.
    wrong = {
        "greeting": [15496, 995],
        "perplexity": truth["perplexity"] * 1.006,
        "paper": truth["perplexity"] * 0.91,
        "bias_tokens": truth["bias_tokens"][::-1],
        "plasma": [rank + 1 for rank in truth["plasma"]],
        "plain_above": truth["plain"],
        "growth": [1.0, 1.0],
    }
    one_wrong = {"greeting": truth["greeting"], "bias_tokens": wrong["bias_tokens"]}
    cases = json.dumps([near, one_wrong, wrong])
    script = f"import sys; sys.path.insert(0, {str(check_gpt2.__file__.rpartition('/')[0])!r})\n"
    status, printed, said = warm.run(script + DRIVER, json.dumps(environment), cases)
    assert status == 0, said
    good, bad, worst = map(json.loads, printed.splitlines())
    code, rows, out, err = good
    measured = dict(row[:2] for row in rows)
    assert 0 <= measured["identity gate, nat"] < 1e-3
    assert measured["tokens of 'Hello world'"] == truth["greeting"]
    perplexity = measured["perplexity of WikiText-2, a token"]
    assert perplexity == pytest.approx(truth["perplexity"], rel=1e-5)
    assert measured["tokens of greatest ln_f.bias . W^T"] == truth["bias_tokens"]
    assert measured["rank of ' plasma' as the next token, last blocks"] == truth["plasma"]
    assert measured["rank of ' plasma' as the next token, plain, last but one"] == truth["plain"]
    assert measured["growth of norms a block"] == pytest.approx(truth["growth"], rel=1e-6)
    from_embedding = measured["growth of norms, with the first block"]
    assert from_embedding == pytest.approx(truth["growth from the embedding"], rel=1e-6)
    assert measured["the same where it is the input"] == truth["as input"] != truth["plasma"]
    assert [row[2] for row in rows].count(None) == 3 and False not in [row[2] for row in rows]
    assert code == 0 and len(out.splitlines()) == 1 + len(rows) and "failed" not in err
    assert f"{perplexity:.5g}" in out and "NO" not in out
    code, _, out, err = bad
    assert code == 1 and out.count(" NO\n") == 1
    tokens, wanted = truth["bias_tokens"], wrong["bias_tokens"]
    assert err == f"failed: gpt2: tokens of greatest ln_f.bias . W^T: {tokens}, expected {wanted}\n"
    code, failing, _, err = worst
    names = [row[0] for row in failing if row[2] is not None]
    assert code == 1 and [row[0] for row in rows if row[2] is not None] == names
    for line, name in zip(err.splitlines()[1:], names, strict=True):
        assert line.startswith(f"failed: gpt2: {name}: ") and ", expected " in line


MAIN = (
    "import sys; sys.path.insert(0, sys.argv[1])\n"
    + """
import json, os
os.environ.update(json.loads(sys.argv[2]))
import check_gpt2
assert check_gpt2.main(sys.argv[3:]) == 0
"""
)


def test_without_a_network_all_is_skipped_with_the_reason(tmp_path):
    folder = check_gpt2.__file__.rpartition("/")[0]
    with hub_files.serve(tmp_path, "org/name", tmp_path) as (gone, _):
        pass  # no hub is there any more
    for environment in (gone, hub_files.offline(tmp_path)):
        status, printed, said = warm.run(MAIN, folder, json.dumps(environment))
        assert status == 0, said
        first, *rest = printed.splitlines()
        assert first.startswith("skipped: WikiText-2: ")
        for line, name in zip(rest, check_gpt2.EXPECTED, strict=True):
            assert line.startswith(f"skipped: {name}: ") and "the hub cannot be reached" in line


def test_unknown_names_and_missing_directories_are_no_reason_to_skip(tmp_path, capsys):
    assert check_gpt2.main(["gpt3"]) == 2
    assert "gpt2, gpt2-medium, gpt2-large, gpt2-xl" in capsys.readouterr().err
    with pytest.raises(errors.MissingError):
        check_gpt2.main([str(tmp_path / "gpt2")])
