"""`python -m segflow_tests.pipeline.follow`: the sensor of late files, evaluated until it has nothing more to do.

Its runs are executed in this process, as the daemon would execute them in others. Prints `asset partition` for all that was
made. The settings come from the environment.
"""

from collections.abc import Iterator

import dagster as dg

from segflow.definitions import defs

_MOST = 10


def follow() -> Iterator[tuple[str, str]]:
    """Asset and partition of everything that was made. Raises RuntimeError when the sensor does not come to rest."""
    sensor = defs.resolve_sensor_def("late_files")
    with dg.DagsterInstance.get() as instance:
        for _ in range(_MOST):
            context = dg.build_sensor_context(
                instance=instance, repository_def=defs.get_repository_def(), sensor_name=sensor.name
            )
            asked = sensor.evaluate_tick(context).run_requests or []
            if not asked:
                return
            for one in asked:
                result = defs.resolve_job_def(str(one.job_name)).execute_in_process(
                    instance=instance, partition_key=one.partition_key, tags=None if one.partition_key else one.tags
                )
                for event in result.get_asset_materialization_events():
                    made = event.materialization
                    yield made.asset_key.to_user_string(), made.partition or ""
    raise RuntimeError(f"the sensor still asks for runs after {_MOST} rounds")


if __name__ == "__main__":
    for name, partition in follow():
        print(name, partition)
