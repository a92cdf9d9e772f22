"""`@materializes`: an asset that writes tables of `segflow.tables`.

The decorated body receives a `Step` and says what to read, compute and write. The rest is the same for every asset and is
derived from the tables: names, column schema, checks, code version, lineage, the MLflow run and the metadata.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from segflow import trouble
from segflow.defs.code_version import code_version
from segflow.defs.metadata import asset_metadata, freshness, tags
from segflow.defs.partitions import CONFIG, DAILY, DAYS_AT_ONCE, Window
from segflow.defs.resources import Segflow
from segflow.defs.step import Step
from segflow.errors import StoreError, UserError
from segflow.storage import Storage, ViolationsError, explained
from segflow.storage.checks import CHECKS
from segflow.tables import Table

Body = Callable[[Step], None]
_STORE_RETRIES = 2
_STORE_PAUSE = 30
"""Seconds before a step is begun anew whose object store did not answer."""


@dataclass(frozen=True)
class Plan:
    """What an asset writes and reads: enough to tell whether one of its partitions is up to date."""

    name: str
    tables: tuple[Table, ...]
    reads: Mapping[Table, Window]
    partitions: dg.PartitionsDefinition | None
    code_version: str
    observes: Callable[[], str] | None = None
    settings: tuple[str, ...] = ()


PLANS: dict[str, Plan] = {}


def materializes(
    *tables: Table,
    group: str,
    reads: Mapping[Table, Window],
    code: Sequence[str],
    settings: Sequence[str] = (),
    partitions: dg.PartitionsDefinition | None = None,
    one_run_for_a_range: bool = False,
    checks: Mapping[str, str] | None = None,
    tells: Mapping[str, str] | None = None,
    kinds: Sequence[str] = (),
    observes: Callable[[], str] | None = None,
    automation: dg.AutomationCondition[dg.AssetKey] | None = None,
    awaited: bool = True,
) -> Callable[[Body], dg.AssetsDefinition]:
    """Make an asset (or several from one pass) of a function of a `Step`.

    reads: upstream table -> window; the step can read nothing else.
    code, settings: what the code version is hashed from.
    one_run_for_a_range: a backfill passes many partitions to one run: `DAYS_AT_ONCE` days, or all chosen segments of a week.
    observes: a digest of what is read outside the tables, such as source files.
    automation: when it is made without a person asking.
    awaited: it is made each day or week, so that it can be late.
    checks: name -> description of rules beyond the tables' own, reported by `Step.require`.
    tells: name -> description of what is worth a warning and stops nothing, reported by `Step.tell`.
    """
    version = code_version(tables, code, settings, CONFIG)

    def decorate(body: Body) -> dg.AssetsDefinition:
        name = body.__name__
        plan = Plan(name, tables, dict(reads), partitions, version, observes, tuple(settings))
        PLANS[name] = plan

        @dg.multi_asset(
            name=name,
            specs=[_spec(table, plan, body, code, group, kinds, awaited, automation) for table in tables],
            check_specs=[
                *(spec for table in tables for spec in _checks(table, checks or {}, table is tables[0])),
                *(
                    dg.AssetCheckSpec(name, asset=tables[0].name, description=description)
                    for name, description in (tells or {}).items()
                ),
            ],
            partitions_def=partitions,
            backfill_policy=_backfill_policy(partitions, one_run_for_a_range),
            pool="segflow",
        )
        def asset(context: dg.AssetExecutionContext, segflow: Segflow) -> Iterator[object]:
            try:
                with Step.open(context, segflow, plan, group) as step:
                    try:
                        body(step)
                    except ViolationsError as error:
                        yield from step.failed(error)
                        raise
                    yield from step.results()
            except ViolationsError as error:
                raise dg.Failure(description=str(error), allow_retries=False) from error
            except Exception as error:
                told = error if isinstance(error, UserError) else explained(error)
                if isinstance(told, StoreError) and told.passing and context.retry_number < _STORE_RETRIES:
                    context.log.warning(f"{told}; begun anew in {_STORE_PAUSE} s")
                    raise dg.RetryRequested(_STORE_RETRIES, _STORE_PAUSE) from error
                if said := str(told) if told else trouble.line(error):
                    raise dg.Failure(description=said, allow_retries=False) from error
                raise

        return asset

    return decorate


def _backfill_policy(partitions: dg.PartitionsDefinition | None, one_run_for_a_range: bool) -> dg.BackfillPolicy:
    """How a backfill cuts its partitions into runs. Also what keeps weeks in order where they read earlier ones.

    Dagster starts the partitions of an asset that depends on itself one after the other only if their runs are limited.
    """
    if not one_run_for_a_range:
        return dg.BackfillPolicy.multi_run()
    return dg.BackfillPolicy.multi_run(DAYS_AT_ONCE) if partitions is DAILY else dg.BackfillPolicy.single_run()


def _spec(
    table: Table,
    plan: Plan,
    body: Body,
    code: Sequence[str],
    group: str,
    kinds: Sequence[str],
    awaited: bool,
    automation: dg.AutomationCondition[dg.AssetKey] | None,
) -> dg.AssetSpec:
    detail = " ".join((body.__doc__ or "").split())
    address = Storage(CONFIG.storage.root).uri(table)
    return dg.AssetSpec(
        table.name,
        deps=[
            dg.AssetDep(read.name, partition_mapping=window.mapping if plan.partitions else None)
            for read, window in plan.reads.items()
        ],
        description=table.description if len(plan.tables) > 1 or not detail else f"{table.description}\n\n{detail}",
        group_name=group,
        code_version=plan.code_version,
        automation_condition=automation,
        kinds={"deltalake", *kinds},
        tags=tags(table, group),
        owners=[CONFIG.metadata.owner],
        metadata=asset_metadata(table, {*plan.reads, *plan.tables}, address, body, code, CONFIG),
        freshness_policy=freshness(table, CONFIG.calendar, CONFIG.metadata.freshness) if awaited else None,
    )


def _checks(table: Table, own: Mapping[str, str], first: bool) -> Iterator[dg.AssetCheckSpec]:
    rules = {**CHECKS, **(own if first else {})}
    for name, description in rules.items():
        yield dg.AssetCheckSpec(name, asset=table.name, description=description, blocking=True)
