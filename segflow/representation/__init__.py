"""Vectors of items, sessions and users: a language model, a behaviour model and their fusion. Pure."""
