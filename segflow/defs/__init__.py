"""Orchestration: everything that knows Dagster. Thin; the work is done by the pure stages."""
