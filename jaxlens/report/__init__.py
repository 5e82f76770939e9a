"""The report of a run: one page with every figure of its study, readable without anything else.

``page`` writes it. ``facts`` says where the numbers come from; ``resolving``, ``discarding``,
``preserving``, ``copying`` and ``twins`` make the figures of a question from the lines of the
study's table, which ``series`` finds; ``jaxlens.view`` draws them.
"""
