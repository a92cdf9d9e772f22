"""The model that MLflow loads: this file is kept with each registered version ("model from code"), beside the bundle.

Lives here: the form of requests and answers as MLflow declares it, and how mistakes become answers of HTTP 400. Does not live
here: what is answered (``segflow.rankers.served``), and registering (``segflow.tracking.serving``).
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import BaseModel, ConfigDict, SkipValidation

from segflow.errors import UserError
from segflow.rankers.requests import Event, Request, read_requests
from segflow.rankers.served import ServedRanker


class Row(BaseModel):
    """A request as the signature shows it. It is not checked by MLflow, whose messages do not say in which row a mistake is."""

    model_config = ConfigDict(extra="allow")

    events: Annotated[list[Event], SkipValidation] = []
    user_id: Annotated[str | None, SkipValidation] = None
    segment_id: Annotated[str | None, SkipValidation] = None
    segments: Annotated[dict[str, float] | None, SkipValidation] = None
    n: Annotated[int | None, SkipValidation] = None
    exclude_seen: Annotated[bool | None, SkipValidation] = None
    now: Annotated[datetime | None, SkipValidation] = None


class ReplyItem(BaseModel):
    """`segflow.rankers.served.Item` in the signature, which is made of models only."""

    item_id: str
    score: float


class Reply(BaseModel):
    """`segflow.rankers.served.Answer` in the signature."""

    user_id: str | None = None
    items: list[ReplyItem]
    arm: str
    events: int
    ignored_events: dict[str, int]


class ServedModel(PythonModel):
    """A bundle behind `predict`."""

    ranker: ServedRanker

    def load_context(self, context: PythonModelContext) -> None:
        """Read the bundle, and answer once: what is made at the first request is there before it."""
        self.ranker = ServedRanker.load(Path(context.artifacts["bundle"]))
        self.ranker.recommend([Request()])

    def predict(
        self, context: PythonModelContext, model_input: list[Row], params: dict[str, Any] | None = None
    ) -> list[Reply]:
        """A list for each row. A mistake of the caller is an error of HTTP status 400 that names the row and the key."""
        try:
            rows = [{name: getattr(row, name) for name in row.model_fields_set} for row in model_input]
            answers = self.ranker.recommend(read_requests(rows))
        except UserError as error:
            raise MlflowException(str(error), error_code=BAD_REQUEST) from error
        return [Reply.model_validate(answer) for answer in answers]


set_model(ServedModel())
