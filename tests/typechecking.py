"""Types and shapes of arrays are checked while the tests run, by jaxtyping with beartype.

``conftest`` installs the hook before the package is imported. Processes that tests start are not
hooked. Left out are modules that take whatever users give and refuse it with errors of their own.
"""

import functools
import importlib

import beartype
import jaxtyping

# An int is given where a float is wanted.
check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))

MODULES = (
    "jaxlens.types",
    *(
        f"jaxlens.lens.{name}"
        for name in (
            *("decoders", "divergences", "identity", "implementations", "kernels", "numerics"),
            *("online", "pallas", "readout", "reference", "temperature", "tiled", "top_k"),
            "unembedding",
        )
    ),
    "jaxlens.tally",
    "jaxlens.models.attention",
    "jaxlens.models.gpt2",
    *(
        f"jaxlens.sweep.probe.{name}"
        for name in ("data", "discriminant", "evaluate", "moments", "survey")
    ),
    "jaxlens.sweep.step",
)
"""What holds arrays. ``lens.options`` is left out: it raises ``ConfigError`` for wrong types."""


REFUSING = ("jaxlens.lens.numerics.require_precision",)
"""Functions of these modules that refuse wrong types themselves, with an error for users."""


def install():
    jaxtyping.install_import_hook(MODULES, "typechecking.check")
    for path in REFUSING:
        module, _, name = path.rpartition(".")
        home = importlib.import_module(module)
        setattr(home, name, getattr(home, name).__wrapped__)
    for module in ("jaxlens.types", "jaxlens.lens.unembedding"):
        for value in vars(importlib.import_module(module)).values():
            if getattr(value, "_flax_dataclass", False) and value.__module__ == module:
                value.__init__ = _unless_structure(value.__init__)


def _unless_structure(checked):
    """Does not check what JAX makes while it works on the structure of a pytree alone."""
    unchecked = getattr(checked, "__wrapped__", checked)

    @functools.wraps(checked)
    def init(self, *args, **fields):
        values = (*args, *fields.values())
        return (unchecked if any(map(_stands_in, values)) else checked)(self, *args, **fields)

    return init


def _stands_in(value):
    """Whether JAX puts such a value in the place of a leaf, as ``ArgInfo`` or a sharding."""
    kind = type(value)
    is_array = kind.__name__ == "ShapeDtypeStruct" or hasattr(value, "__array__")
    return kind is object or (kind.__module__.startswith("jax") and not is_array)
