"""Orchestration: everything that knows Dagster. Thin; the work is done by the pure stages."""

import warnings

import dagster as dg

# Partition mappings that name neighbouring weeks are marked beta in Dagster 1.13, and would warn in every process.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
