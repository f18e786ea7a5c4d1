"""The sequence model: histories in, calibrated probabilities out; kept as a folder of verified files.

question.json         what it answers
rows.json             the schema of the rows whose customer columns it reads
calibration.json      from raw to calibrated probabilities
sequence.json         its architecture, words and window
network.safetensors   its weights
manifest.json         SHA-256 of each of the above; checked before any of them is parsed

It answers batches only: the serving process reads feature rows, which do not carry a history.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from features.errors import ArtefactError
from features.schema import Float32, Int64, Rows, RowSchema, Texts
from serving.calibration import Calibration
from serving.choice import CALIBRATION_FILE, QUESTION_FILE, ROWS_FILE, ChoiceModel, verify, write_verified
from serving.question import Question
from serving.scorers import check_finite
from training.sequence.fit_sequence import utilities
from training.sequence.machine import Machine
from training.sequence.sequence_network import SequenceNetwork, Shape, restored
from training.sequence.tokens import Tokens
from training.sequence.vocabulary import Vocabulary
from training.sequence.windows import Asked

FAMILY = "sequence"
SEQUENCE_FILE, NETWORK_FILE = "sequence.json", "network.safetensors"


@dataclass(frozen=True)
class Answered:
    """A scorer that has given its answer already, log-utilities float32 [n, m + 1]: asked again, it is for the same n
    rows."""

    said: Float32
    family: str = FAMILY

    def utilities(self, rows: Rows) -> Float32:
        if len(rows) != len(self.said):
            raise ValueError(f"the answers are for {len(self.said)} rows, however {len(rows)} are asked about")
        return self.said

    def save(self, folder: Path) -> None:
        raise ArtefactError(f"a {FAMILY} model is kept whole, by SequenceModel.save, however its scorer was to be kept")


@dataclass(frozen=True)
class SequenceModel:
    """A network with its question, words, calibration and the schema of the rows that it reads. length: of a window."""

    question: Question
    vocabulary: Vocabulary
    shape: Shape
    network: SequenceNetwork
    length: int
    calibration: Calibration
    row_schema: RowSchema

    def utilities(self, tokens: Tokens, customer_id: Texts, as_of: Int64, rows: Rows) -> Float32:
        """Log-utilities, float32 [n, m + 1], of n customers as of µs int64 [n]; of `tokens` only what was known then.

        ArtefactError when the rows have another schema than the model, or the tokens other products or channels.
        """
        if rows.schema.fingerprint != self.row_schema.fingerprint:
            raise ArtefactError(
                f"{self.question.model} was trained on feature rows {self.row_schema.fingerprint[:12]}, however these "
                f"rows are {rows.schema.fingerprint[:12]}; train again on the present features"
            )
        facts = rows.customer if self.shape.facts else rows.customer[:, :0]
        asked = Asked.of(tokens, customer_id, as_of, facts, self.vocabulary.time_zone)
        return utilities(self.network, asked, self.vocabulary.encode(tokens), self.length, Machine())

    def answers(self, tokens: Tokens, customer_id: Texts, as_of: Int64, rows: Rows) -> ChoiceModel:
        """A choice model of these n rows alone, for all that judges and ranks choices."""
        said = self.utilities(tokens, customer_id, as_of, rows)
        return ChoiceModel(self.question, Answered(said), self.calibration, self.row_schema)

    def save(self, folder: Path) -> None:
        """Write the model to `folder`, all of it or nothing; ArtefactError when something is there already."""
        config = {
            "family": FAMILY,
            "length": self.length,
            "shape": asdict(self.shape),
            "vocabulary": self.vocabulary.to_dict(),
        }

        def write(draft: Path) -> None:
            (draft / QUESTION_FILE).write_text(self.question.to_json(), encoding="utf-8")
            (draft / ROWS_FILE).write_text(self.row_schema.to_json(), encoding="utf-8")
            (draft / CALIBRATION_FILE).write_text(self.calibration.to_json(), encoding="utf-8")
            (draft / SEQUENCE_FILE).write_text(json.dumps(config, ensure_ascii=False, indent=1), encoding="utf-8")
            state = {name: value.float().contiguous() for name, value in self.network.state_dict().items()}
            save_file(state, draft / NETWORK_FILE)

        write_verified(folder, write)

    @classmethod
    def load(cls, folder: Path) -> SequenceModel:
        """Load a saved model; ArtefactError when a file is missing, extra, damaged or does not fit the others."""
        folder = Path(folder)
        verify(folder)
        try:
            config: dict[str, Any] = json.loads((folder / SEQUENCE_FILE).read_text(encoding="utf-8"))
            shape = Shape(**{**config["shape"], "words": tuple(config["shape"]["words"])})
            weights = load_file(folder / NETWORK_FILE)
            for name, values in weights.items():
                check_finite(name, values.numpy())
            network = restored(shape, weights)
            return cls(
                Question.from_json((folder / QUESTION_FILE).read_text(encoding="utf-8")),
                Vocabulary.from_dict(config["vocabulary"]),
                shape,
                network,
                int(config["length"]),
                Calibration.from_json((folder / CALIBRATION_FILE).read_text(encoding="utf-8")),
                RowSchema.from_json((folder / ROWS_FILE).read_text(encoding="utf-8")),
            )
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ArtefactError(f"{folder} is not a model that this version reads: {error!r}; train again") from error
