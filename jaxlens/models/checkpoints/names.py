"""What training libraries put around the names of weights, whatever the family.

Four tables: prefixes that mean nothing, heads of other tasks, what reads other inputs than text,
and names that say the file is no plain model. A new wrapper is one line here; the names of a
family's own weights stand with the family and never contain one of these.
"""

from __future__ import annotations

from jaxlens import errors

WRAPPERS: dict[str, str] = {
    "module": "DataParallel, DistributedDataParallel, DeepSpeed",
    "model": "Lightning modules and models inside of a model",
    "lm": "models inside of a model",
    "base_model": "PEFT, and transformers' name for the model below the head",
    "pretrained_model": "TRL's models with a value head",
    "transformer": "GPT-2 with a head",
    "gpt2": "GPT-2 inside of a model",
    "gpt_neox": "GPT-NeoX with a head",
    "params": "Flax",
    "_forward_module": "Lightning Fabric",
    **dict.fromkeys(
        ("_model", "net", "network", "backbone", "language_model", "llm", "gpt", "policy", "actor"),
        "attributes of training modules",
    ),
}
"""First parts of a name that are dropped, in any order and number, and who adds them."""

TRANSPARENT: dict[str, str] = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module": "activation checkpointing",
}
"""Parts that are dropped wherever in a name they stand, since they wrap single layers too."""

OTHER_HEADS: dict[str, str] = {
    "score": "sequence classification",
    "classifier": "classification",
    "v_head": "values of a policy",
    "value_head": "values of a policy",
    "qa_outputs": "question answering",
    "multiple_choice_head": "multiple choice",
}
"""First parts of the names of heads that say nothing about tokens, and their tasks."""

OTHER_INPUTS: dict[str, str] = {
    "vision_tower": "images",
    "multi_modal_projector": "images",
}
"""First parts of the names of what turns other inputs than text into embeddings, and the inputs."""

_MERGE = "merge it first: peft's model.merge_and_unload(), then save_pretrained"
NO_MODEL: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        (
            *("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"),
            *("lora_magnitude_vector", "base_layer", "modules_to_save", "original_module"),
            *("ia3_l", "prompt_encoder", "prompt_embeddings"),
        ),
        ("part of an adapter", _MERGE),
    ),
    **dict.fromkeys(
        ("absmax", "quant_map", "SCB", "qweight", "qzeros", "scales"),
        ("of quantised weights", "dequantise the model where it was made, and save it again"),
    ),
    **dict.fromkeys(
        ("W_E", "W_pos", "W_Q", "W_U"),
        ("a name of TransformerLens", "save the model that it was loaded from"),
    ),
}
"""Parts of names that a plain model does not have: what they are, and the remedy."""


def bare(name: str, separator: str) -> str:
    """A name without what wrappers added.

    Args:
        name: As it is stored.
        separator: Between its parts, ``.`` or ``/``.
    """
    parts = [part for part in name.split(separator) if part not in TRANSPARENT]
    first = next((i for i, part in enumerate(parts) if part not in WRAPPERS), len(parts))
    return separator.join(parts[first:])


def other_task(name: str, separator: str) -> str | None:
    """The task whose head a tensor belongs to; None where it is no such head."""
    return OTHER_HEADS.get(bare(name, separator).split(separator)[0])


def other_input(name: str, separator: str) -> str | None:
    """The input, other than text, that a tensor is for; None where it is for none."""
    return OTHER_INPUTS.get(bare(name, separator).split(separator)[0])


def refuse_no_model(name: str, separator: str, where: str) -> None:
    """Refuses a tensor that shows that the file is not a plain model.

    Raises:
        DataError: Naming the tensor and the remedy.
    """
    for part in name.split(separator):
        if part in NO_MODEL:
            what, remedy = NO_MODEL[part]
            raise errors.DataError(f"{where} is {what}", remedy)
