"""Independent forwards of the model families: float64 NumPy on the tensors of a checkpoint.

Each module has ``CASES``, small configurations that use every option of its family, and
``residuals`` and ``logits``, which read tensors by the names that transformers gives them. They
share no code with the package: heads one after the other, a whole mask, no scan.
"""

from families import gemma, gpt_neox, llama, olmo2

FAMILIES = (gpt_neox, llama, olmo2, gemma)

CASES = {name: (module, config) for module in FAMILIES for name, config in module.CASES.items()}
