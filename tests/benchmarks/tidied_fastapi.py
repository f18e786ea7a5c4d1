"""The tidied stack behind FastAPI: `uvicorn tidied_fastapi:app --no-access-log`."""

from typing import Any

from fastapi import FastAPI
from naive import Tidied
from pydantic import BaseModel

app = FastAPI()
tidied = Tidied()


class Question(BaseModel):
    customer_id: str


@app.post("/decide")
def decide(question: Question) -> dict[str, Any]:
    return tidied.decide(question.customer_id)
