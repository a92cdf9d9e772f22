"""`make bench-segments`: how fast segments are chosen, fitted and assigned, and how often planted ones are found.

The peer is scikit-learn's k-means, as it comes and on all users. Prints what was asked for with whether it held. Nothing
here asserts a time; only another number of segments than the planted one is a failure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from segflow.config import SegmentConfig
from segflow_tests.benchmarks.bench_events import Target
from segflow_tests.benchmarks.clustering_job import Assigned, Fitted, Selected, fitted, selected
from segflow_tests.benchmarks.segments_grid import grid_report

_WIDTH, _SEGMENTS = 64, 12


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if the selection does not come to the planted number of segments."""
    parser = argparse.ArgumentParser(prog="bench-segments", description=__doc__)
    parser.add_argument("--users", type=int, default=100_000, help="users whose segments are chosen")
    parser.add_argument("--everybody", type=int, default=1_000_000, help="users who are fitted and assigned")
    parser.add_argument("--seeds", type=int, default=1, help="planted logs of each kind; 0 leaves the grid out")
    parser.add_argument("--noise", type=int, default=100, help="logs without segments")
    options = parser.parse_args(arguments)
    config = SegmentConfig()
    chosen = selected(options.users, _WIDTH, _SEGMENTS, config)
    print(of_selection(chosen), flush=True)
    fit, assignment = fitted(options.everybody, _WIDTH, _SEGMENTS, config)
    print(of_everybody(fit, assignment), flush=True)
    if options.seeds:
        print(grid_report(options.seeds, options.noise), flush=True)
    print()
    for target in (*selecting(chosen), *fitting(fit), *assigning(assignment)):
        print(target)
    return 0 if chosen.our_k == chosen.planted else 1


def of_selection(one: Selected) -> str:
    """The selections' figures in one line."""
    return (
        f"{one.users:,} users in {one.planted} planted segments: {one.our_k} chosen in {one.ours:.1f} s with all indices, "
        f"{one.bootstraps} bootstraps (least stability {one.stability:.2f}) and the null model; scikit-learn on all users, "
        f"three bootstraps, no null model: {one.their_k} in {one.theirs:.1f} s"
    )


def of_everybody(fit: Fitted, assignment: Assigned) -> str:
    """The figures of fit and assignment in one line."""
    return (
        f"{fit.users:,} users: fitted in {fit.ours:.2f} s to inertia {fit.our_inertia:.4f} a user, scikit-learn "
        f"{fit.theirs:.2f} s to {fit.their_inertia:.4f}; placed in {assignment.placed:.3f} s, with distances in "
        f"{assignment.assigned:.3f} s, one matrix product {assignment.floor:.3f} s"
    )


def selecting(one: Selected) -> Iterator[Target]:
    """The selection's share of the plain loop's time, and whether it comes to the planted number."""
    yield Target(
        "the whole selection in at most half of the plain job's time", f"{one.share:.2f} of it", one.share <= 0.5
    )
    asked = f"the planted number of segments ({one.planted}) chosen"
    yield Target(asked, f"{one.our_k}, by the plain job {one.their_k}", one.our_k == one.planted)


def fitting(one: Fitted) -> Iterator[Target]:
    """Speed and inertia of the fit to everybody."""
    yield Target("the fit to everybody at least 3 times as fast as scikit-learn's", f"{one.ratio:.1f}", one.ratio >= 3)
    # Equal means equal to six digits: both sum a million distances in single precision.
    better = one.our_inertia <= one.their_inertia * (1 + 1e-6)
    yield Target("at equal or better inertia", f"{one.our_inertia / one.their_inertia:.6f} of theirs", better)


def assigning(one: Assigned) -> Iterator[Target]:
    """The assignment in units of one matrix product, without and with distances and outlier flags."""
    asked = "everybody's segment and probabilities within 3 times one matrix product"
    for what, seconds in ((asked, one.placed), (f"{asked}, distances and outliers too", one.assigned)):
        yield Target(what, f"{seconds / one.floor:.1f}", seconds <= 3 * one.floor)


if __name__ == "__main__":
    sys.exit(main())
