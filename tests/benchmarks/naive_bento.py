"""The naive stack behind BentoML with its defaults, as in its quickstart: `bentoml serve naive_bento:NaiveService`."""

from typing import Any

import bentoml
from naive import Naive


@bentoml.service
class NaiveService:
    def __init__(self) -> None:
        self.naive = Naive()

    @bentoml.api
    def decide(self, customer_id: str) -> dict[str, Any]:
        return self.naive.decide(customer_id)
