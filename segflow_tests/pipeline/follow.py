"""`python -m segflow_tests.pipeline.follow`: the sensor of late files, evaluated until it has nothing more to do.

Its runs are executed in this process, as the daemon would execute them in others. Prints `asset partition` for all that was
made. The settings come from the environment.
"""

import sys

import dagster as dg

from segflow.definitions import defs

_MOST = 10

if __name__ == "__main__":
    sensor = defs.resolve_sensor_def("late_files")
    with dg.DagsterInstance.get() as instance:
        for _ in range(_MOST):
            context = dg.build_sensor_context(
                instance=instance, repository_def=defs.get_repository_def(), sensor_name=sensor.name
            )
            asked = sensor.evaluate_tick(context).run_requests or []
            if not asked:
                sys.exit(0)
            for one in asked:
                result = defs.resolve_job_def(str(one.job_name)).execute_in_process(
                    instance=instance, partition_key=one.partition_key, tags=None if one.partition_key else one.tags
                )
                for event in result.get_asset_materialization_events():
                    made = event.materialization
                    print(made.asset_key.to_user_string(), made.partition or "")
    sys.exit("the sensor does not come to rest")
