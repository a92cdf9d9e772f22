"""`python -m segflow_tests.pipeline.run_job JOB FIRST LAST [TABLE ...]`: partitions of a job, in this process.

What a backfill from the Dagster UI does, without its daemon. The settings come from the environment.
"""

import sys

import dagster as dg

from segflow.definitions import defs

if __name__ == "__main__":
    job, first, last, *only = sys.argv[1:]
    span = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def(job).execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(name) for name in only] or None,
            partition_key=(first or None) if first == last else None,
            tags=None if first == last else span,
        )
    sys.exit(0 if result.success else 1)
