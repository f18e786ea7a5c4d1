"""The naive stack behind FastAPI, as its first steps show: `uvicorn naive_fastapi:app`."""

from typing import Any

from fastapi import FastAPI
from naive import Naive
from pydantic import BaseModel

app = FastAPI()
naive = Naive()


class Question(BaseModel):
    customer_id: str


@app.post("/decide")
def decide(question: Question) -> dict[str, Any]:
    return naive.decide(question.customer_id)
