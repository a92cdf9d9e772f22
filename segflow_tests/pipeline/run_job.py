"""`python -m segflow_tests.pipeline.run_job JOB FIRST [LAST]`: a job over a range of partitions, in this process.

What a backfill from the Dagster UI does, without its daemon. The settings come from the environment.
"""

import sys

import dagster as dg

from segflow.definitions import defs

if __name__ == "__main__":
    job, first, last = sys.argv[1], sys.argv[2], sys.argv[-1]
    with dg.DagsterInstance.get() as instance:
        if first == last:
            result = defs.resolve_job_def(job).execute_in_process(instance=instance, partition_key=first)
        else:
            result = defs.resolve_job_def(job).execute_in_process(
                instance=instance,
                tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
            )
    sys.exit(0 if result.success else 1)
