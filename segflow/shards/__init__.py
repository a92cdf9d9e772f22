"""Pieces of a step's work that an engine's workers do: each opens a reader of what its step reads, and calls the stages.

An item says which piece, by names and numbers; results are models, or references to tables. Pieces compute with as many threads
as their step, so the last bits are the same wherever they are worked on.

Does not live here: the engines (``compute``), what is read (``reading``), and how anything is computed (the stages).
"""
