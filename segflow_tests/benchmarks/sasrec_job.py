"""How many positions a second RecTools' SASRec trains; needs the packages of its own requirements file."""

from __future__ import annotations

import logging
import time
import warnings

import numpy as np
import pandas as pd

from segflow.representation.sequences import EventSequences


def positions_per_second(
    log: EventSequences,
    *,
    width: int,
    layers: int,
    heads: int,
    length: int,
    batch_users: int = 128,
    loss: str = "softmax",
    negatives: int = 256,
    precision: str = "32-true",
    epochs: int = 1,
    seed: int = 0,
) -> float:
    """Positions of ``log`` a second over ``epochs`` passes, the first step's warm-up not counted.

    loss: "softmax" over the whole catalogue, "sampled_softmax" or "BCE" against ``negatives`` of each position; precision:
    as Lightning names it.
    """
    from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel
    from rectools.models.nn.transformers.sasrec import SASRecDataPreparator

    class Preparator(SASRecDataPreparator):  # type: ignore[misc]
        """As RecTools' own; pandas 3 finds the distinct values of an array, and no longer those of a tuple."""

        item_extra_tokens = np.array(SASRecDataPreparator.item_extra_tokens, object)

    class Clock(Callback):  # type: ignore[misc]
        """Times every epoch but the first, which pays for what happens once."""

        def __init__(self) -> None:
            self.began, self.spent = 0.0, 0.0

        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.began = time.perf_counter()

        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch > 0:
                self.spent += time.perf_counter() - self.began

    def trainer() -> Trainer:
        return Trainer(
            accelerator="cpu",
            precision=precision,  # type: ignore[arg-type]
            max_epochs=epochs + 1,
            min_epochs=epochs + 1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Clock()],
        )

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seed_everything(seed, verbose=False)
        rows = pd.DataFrame(
            {
                Columns.User: log.user_of_event,
                Columns.Item: log.items,
                Columns.Weight: 1.0,
                Columns.Datetime: pd.to_datetime(log.times, unit="us"),
            }
        )
        model = SASRecModel(
            n_blocks=layers,
            n_heads=heads,
            n_factors=width,
            session_max_len=length,
            batch_size=batch_users,
            loss=loss,
            n_negatives=negatives,
            epochs=epochs + 1,
            data_preparator_type=Preparator,
            get_trainer_func=trainer,
        )
        model.fit(Dataset.construct(rows))
    # The trainer that fits is a copy of the one that was given.
    clock = next(one for one in model.fit_trainer.callbacks if isinstance(one, Clock))
    positions = np.minimum(np.diff(log.offsets) - 1, length).clip(0).sum()
    return float(positions * epochs / clock.spent)
