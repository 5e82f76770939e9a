"""Prompts whose tokens are what a stranger's tokenizer may hold."""

import numpy as np

from jaxlens.view.prompt import prompt

TOKENS = (
    b"</script><img src=x onerror=alert(1)>",
    b"<!-- ]]> &amp; \" '",
    b"\x1b[31mred\x1b[0m\x07",
    "\u202eesrever\u2066".encode(),
    "\ud800".encode("utf-8", "surrogatepass"),
    b"a" * 10_000,
    b"\xe2\x80",
    "\u2028\u2029\u200b".encode(),
    b" plasma",
    b"\n\t\r\0",
    b"$x_1$",
    "日本".encode(),
    b"",
)


def prompt_of(tokens=TOKENS, n_layers=4, seed=0, follow=(0, 8), decoders=("final_norm", "plain")):
    """A prompt that reads every token once; numbers are random, some of them missing."""
    rng = np.random.default_rng(seed)
    count = len(tokens)

    def reading():
        shape = (n_layers, count)
        found = {name: -rng.exponential(4, shape) for name in prompt.QUANTITIES if "logp" in name}
        found |= {
            f"rank_{n}": rng.integers(0, count + 1, shape) for n in ("input", "next", "final")
        }
        found |= {n: rng.exponential(5, shape) for n in ("kl_final", "kl_to_final", "kl_input")}
        found["entropy"] = rng.uniform(0, np.log(count), shape)
        found["top_id"] = rng.permuted(np.tile(np.arange(count), (*shape, 1)), axis=2)[..., :3]
        found["top_logp"] = -np.sort(rng.exponential(2, (*shape, 3)))
        found["rank_follow"] = rng.integers(1, count + 1, (*shape, len(follow)))
        found["logp_follow"] = -rng.exponential(4, (*shape, len(follow)))
        found["logp_next"][:, -1] = np.nan
        found["rank_next"][:, -1] = 0
        kinds = {"f": np.float32, "i": np.int32}
        return {name: values.astype(kinds[values.dtype.kind]) for name, values in found.items()}

    ids = np.arange(count)
    return prompt.Prompt(
        model="<b>model</b>",
        text="</script>\u202e\x1b[2J prompt",
        ids=ids,
        following=np.append(ids[1:], -1),
        layers=("input", *(f"h.{i}" for i in range(n_layers - 1))),
        vocab_size=count,
        token_bytes=dict(enumerate(tokens)),
        readings={name: reading() for name in decoders},
        follow=tuple(follow),
    )
