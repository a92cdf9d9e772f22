"""Automation conditions: when an asset is made without a person asking, and the sensor that evaluates them.

They know what Dagster's own conditions cannot: by content digests, whether anything that a partition read has changed
(``provenance``), and whether all that it reads is there (``following``). So they are evaluated in the code server.

Lives here: conditions and their sensor. Does not live here: what is due (``following``), what runs by the clock (``schedules``).
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Collection, Iterable, MutableMapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg
from dagster import AutomationCondition
from dagster._core.definitions.events import AssetKeyPartitionKey

from segflow.defs.following import Following, plan_of
from segflow.defs.materializes import Plan
from segflow.defs.partitions import CONFIG
from segflow.defs.provenance import Made, Provenance

Context = dg.AutomationContext[dg.AssetKey]
Result = dg.AutomationResult[dg.AssetKey]

# What the log holds at a place never changes, so a code server reads it once. By the identity of the log.
_RECORDS: dict[str, MutableMapping[int, Made | None]] = {}
_LOOKS: WeakKeyDictionary[Any, Following] = WeakKeyDictionary()


def look(context: Context) -> Following:
    """What is due: seen once for all conditions of a tick."""
    view = context.asset_graph_view
    if view not in _LOOKS:
        storage: Any = view.instance.run_storage
        provenance = Provenance(view.instance, _RECORDS.setdefault(storage.get_run_storage_id(), {}))
        _LOOKS[view] = Following(provenance, context.evaluation_time)
    return _LOOKS[view]


class _Condition(AutomationCondition[dg.AssetKey]):
    """A condition that chooses among the partition keys of an asset; an asset without partitions has one empty key."""

    label = ""
    told = ""

    @property
    def name(self) -> str:
        return self.label.replace(" ", "_")

    @property
    def description(self) -> str:
        return self.told

    @property
    def requires_cursor(self) -> bool:
        return False

    def get_label(self) -> str:
        """What the UI calls it."""
        return self.label

    def evaluate(self, context: Context) -> Result:
        """True for the candidates that `choose` chooses."""
        if context.candidate_subset.is_empty:
            return dg.AutomationResult(context, context.get_empty_subset())
        following, plan = look(context), _plan(context)
        return dg.AutomationResult(context, _subset(context, self.choose(context, following, plan)))

    @abstractmethod
    def choose(self, context: Context, following: Following, plan: Plan) -> Iterable[str]:
        """The keys for which it is true; those that are no candidates are left out of them."""


class NeverMade(_Condition):
    """Days whose sessions are there, followed weeks and their segments, as long as they were never made."""

    label = "never made"
    told = "Was never made, and its day or week is followed"

    def choose(self, context: Context, following: Following, plan: Plan) -> Iterable[str]:
        return [key for key in following.candidates(plan) if following.made(plan, key) is None]


class InputsChanged(_Condition):
    """Made by the code of now, from something that has other content by now and whose changes are followed."""

    label = "inputs changed"
    told = "What it was made of has changed; its code has not"

    def choose(self, context: Context, following: Following, plan: Plan) -> Iterable[str]:
        return [
            key for key in following.candidates(plan) if following.changed(plan, key) and following.same_code(plan, key)
        ]


class Ready(_Condition):
    """All that it reads is there and up to date, or is made before it in the same run."""

    label = "ready"
    told = "All that it reads is there and up to date, or is asked for by this tick, for the same partition"

    def choose(self, context: Context, following: Following, plan: Plan) -> Iterable[str]:
        return [
            key for key in _candidates(context) if following.waits_for(plan, key, _promised(context, plan, key)) is None
        ]


class AskedOnce(AutomationCondition[dg.AssetKey]):
    """Not asked for before with inputs as they are now. It comes last: what it lets through is asked for.

    Remembers, for each partition that is still due, what it would have been made of when it was asked for. So a run that fails is
    not asked for again until something changes or a person runs it; transient faults are for Dagster's run retries.
    """

    @property
    def name(self) -> str:
        return "not_asked_before"

    @property
    def description(self) -> str:
        return "Was not asked for before with inputs as they are now"

    def get_label(self) -> str:
        """What the UI calls it."""
        return "not asked before"

    def evaluate(self, context: Context) -> Result:
        """True for the candidates that are new, or whose inputs are."""
        following, plan = look(context), _plan(context)
        before: dict[str, Any] = json.loads(context.cursor or "{}")
        asked = {
            key: one for key, one in before.items() if following.made(plan, key) is None or following.changed(plan, key)
        }
        new = []
        for key in _candidates(context):
            digest, pending = _expected(context, plan, key), sorted({name for name, _ in _promised(context, plan, key)})
            known = asked.get(key)
            if known is None or (known[0] != digest and not _failed(context, following, known[1], key)):
                new.append(key)
                asked[key] = [digest, pending]
            else:
                asked[key] = [digest, known[1] if known[0] == digest else []]
        return dg.AutomationResult(context, _subset(context, new), cursor=json.dumps(asked, sort_keys=True))


class WhereDue(AutomationCondition[dg.AssetKey]):
    """A condition of Dagster's own, looked at only if there is a candidate: on most ticks there is none, for any asset."""

    def __init__(self, operand: AutomationCondition[Any], label: str):
        self._operand = operand
        self._label = label

    @property
    def name(self) -> str:
        return self._label.replace(" ", "_")

    @property
    def children(self) -> Sequence[AutomationCondition[Any]]:
        return [self._operand]

    @property
    def requires_cursor(self) -> bool:
        return False

    def get_label(self) -> str:
        """What the UI calls it."""
        return self._label

    async def evaluate(self, context: Context) -> Result:  # type: ignore[override]
        """True where the operand is."""
        if context.candidate_subset.is_empty:
            return dg.AutomationResult(context, context.get_empty_subset())
        found = await context.for_child_condition(
            child_condition=self._operand, child_indices=[0], candidate_subset=context.candidate_subset
        ).evaluate_async()
        return dg.AutomationResult(context, found.true_subset, child_results=[found])


def _plan(context: Context) -> Plan:
    return plan_of(context.key.to_user_string())


def _candidates(context: Context) -> list[str]:
    if context.candidate_subset.is_empty:
        return []
    if context.partitions_def is None:
        return [""]
    return sorted(context.candidate_subset.expensively_compute_partition_keys())


def _subset(context: Context, keys: Iterable[str]) -> Any:
    """The candidates among `keys`."""
    keys = set(keys)
    if not keys:
        return context.get_empty_subset()
    if context.partitions_def is None:
        return context.candidate_subset
    found = context.asset_graph_view.get_asset_subset_from_asset_partitions(
        context.key, {AssetKeyPartitionKey(context.key, key) for key in keys}, validate_existence=True
    )
    return context.candidate_subset.compute_intersection(found)


def _promised(context: Context, plan: Plan, key: str) -> Collection[tuple[str, str]]:
    """What `key` reads and this tick asks for too, of the same partition, so that both are one run."""
    found = []
    for table in plan.reads:
        upstream = dg.AssetKey(table.name)
        asked = context.request_subsets_by_key.get(upstream)
        if plan.partitions is None or asked is None or plan_of(table.name).partitions != plan.partitions:
            continue
        if key in asked.expensively_compute_partition_keys():
            found.append((table.name, key))
    return found


def _expected(context: Context, plan: Plan, key: str) -> str:
    """Digest of what `key` would be made of now; of what is made before it in the same run, what that is made of."""
    digest = look(context).provenance.inputs(plan, key)
    promised = [_expected(context, plan_of(name), key) for name, _ in _promised(context, plan, key)]
    return hashlib.sha256(" ".join([digest, *promised]).encode()).hexdigest()[:16] if promised else digest


def _failed(context: Context, following: Following, pending: Collection[str], key: str) -> bool:
    """Whether `key`, which was asked for together with the tables `pending`, was tried after these had been made.

    What it was to be made of was not known when it was asked for; it is tried by the run that made the last of them.
    """
    made = [one for name in pending for one in following.made(plan_of(name), key) or ()]
    if not made:
        return False
    last = max(made, key=lambda one: one.order).run
    planned = context.asset_graph_view.instance.get_records_for_run(
        last, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    ).records
    return any(
        record.event_log_entry.get_dagster_event().asset_key == context.key
        and record.partition_key in (key or None, key)
        for record in planned
    )


# A check that never ran holds nothing back: a week without segments has no ranker of one.
_CHECKS_HOLD = (
    ~AutomationCondition.any_deps_match(
        AutomationCondition.any_checks_match(AutomationCondition.check_failed(), blocking_only=True)
    )
).with_label("no blocking check of what it reads failed")
_FREE = (~AutomationCondition.in_progress()).with_label("not under way")
_QUIET = (~AutomationCondition.any_deps_in_progress()).with_label("nothing that it reads is under way")

_UNDISTURBED = WhereDue(_FREE & _QUIET & _CHECKS_HOLD, "undisturbed")

FOLLOWS = ((NeverMade() | InputsChanged()).with_label("due") & Ready() & _UNDISTURBED & AskedOnce()).with_label(
    "made when due"
)
"""For what follows from days and snapshots: made when it is missing, and again when what it follows changes."""

CHANGES = (InputsChanged() & Ready() & _UNDISTURBED & AskedOnce()).with_label("made again when changed")
"""For the snapshot of a week: made again when other assets of the week change; the schedule makes it the first time."""

downstream = dg.AutomationConditionSensorDefinition(
    "downstream",
    target=dg.AssetSelection.all(),
    use_user_code_server=True,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING if CONFIG.automation.downstream else dg.DefaultSensorStatus.STOPPED,
    run_tags={"segflow/asked_by": "downstream"},
    description="Makes what follows from days and from the snapshots of followed weeks, by their automation conditions.",
)
