"""The resources of a step: the settings, the tables and the tracking store."""

from __future__ import annotations

from functools import cached_property

import dagster as dg

from segflow.config import Config
from segflow.defs.partitions import CONFIG
from segflow.storage import Storage
from segflow.tracking import Tracking


class Segflow(dg.ConfigurableResource):
    """The seams to the outside, as the settings describe them."""

    @property
    def config(self) -> Config:
        """The settings that the definitions were loaded with."""
        return CONFIG

    @cached_property
    def storage(self) -> Storage:
        """The tables."""
        return Storage(CONFIG.storage.root, CONFIG.storage.options)

    @cached_property
    def tracking(self) -> Tracking:
        """The MLflow runs."""
        return Tracking(CONFIG.tracking)
