"""From MLflow's registry to a model that answers: alias, version or run → artefact folder → ChoiceModel.

MLflow is imported inside, and only where its database exists: merely connecting would create one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from features.errors import NoSuchModel
from features.schema import RowSchema

if TYPE_CHECKING:
    from serving.choice import ChoiceModel
    from serving.timing import TimingModel

CHAMPION = "champion"
PRIOR = "prior"
"""Alias of the prior that answers when the champion cannot; where training set it."""
PRODUCT_MODEL = "next-best-product"
CHANNEL_MODEL = "channel-choice"
TIMING_MODEL = "send-time"


@dataclass(frozen=True)
class Loaded:
    """A model and where in the registry it came from."""

    model: ChoiceModel
    name: str
    version: str
    run_id: str


def champion(model_name: str, tracking_uri: str) -> Loaded:
    """The model with the alias `champion`; ArtefactError with the reason where there is none or it is damaged."""
    return resolve(model_name, CHAMPION, tracking_uri)


def resolve(model_name: str, reference: str, tracking_uri: str) -> Loaded:
    """Load a registered model by alias, version number or run id; ArtefactError says what is missing or damaged."""
    from serving.choice import ChoiceModel

    found = _located(model_name, reference, tracking_uri)
    return Loaded(ChoiceModel.load(found.folder), model_name, found.version, found.run_id)


def resolve_timing(reference: str, tracking_uri: str) -> tuple[TimingModel, str]:
    """The timing model of that alias, version or run, and its version; ArtefactError where there is none to use."""
    from serving.timing import TimingModel

    found = _located(TIMING_MODEL, reference, tracking_uri)
    return TimingModel.load(found.folder), found.version


@dataclass(frozen=True)
class _Located:
    folder: Path
    version: str
    run_id: str


def _located(model_name: str, reference: str, tracking_uri: str) -> _Located:
    """Where the artefacts of a registered model lie; nothing of them is read."""
    database = _local_database(tracking_uri)
    if database is not None and not database.is_file():
        raise NoSuchModel(f"there is no MLflow database at {database}; train with `nextbest train {model_name}`")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        found = _version(MlflowClient(tracking_uri, tracking_uri), model_name, reference)
        folder = _folder(str(found.source), tracking_uri)
    except MlflowException as error:
        raise NoSuchModel(
            f"{model_name} has no {reference!r} in the registry at {tracking_uri}: {error.message}; "
            f"train with `nextbest train {model_name}`"
        ) from error
    return _Located(folder, str(found.version), str(found.run_id))


def misfit(schema: RowSchema, present: RowSchema) -> str | None:
    """Why a model trained on rows of `schema` cannot read this build's rows; None where it can.

    The vocabularies are the model's own: they only say which texts it has columns for.
    """
    for part in ("products", "holdable", "channels", "attributes", "time_zone", "product_names", "channel_names"):
        trained, now = getattr(schema, part), getattr(present, part)
        if trained != now:
            return f"trained with {part} {_short(trained)}, however this build has {_short(now)}; train again"
    if _shared_names(schema) != _shared_names(present):
        return "trained on other customer columns than this version makes; train again"
    return None


def _shared_names(schema: RowSchema) -> tuple[str, ...]:
    """Names of the customer columns that do not depend on the vocabularies, which stand first."""
    from features.profile import customer_names

    return schema.customer_names[len(customer_names(schema.attributes, schema.vocabularies)) :]


def _version(client: Any, model_name: str, reference: str) -> Any:
    """The MLflow model version that `reference` names."""
    if reference.isdigit():
        return client.get_model_version(model_name, reference)
    if re.fullmatch(r"[0-9a-f]{32}", reference):
        versions = client.search_model_versions(f"name = '{model_name}' and run_id = '{reference}'")
        if not versions:
            raise NoSuchModel(f"no version of {model_name} comes from run {reference}; register the run first")
        return max(versions, key=lambda version: int(version.version))
    return client.get_model_version_by_alias(model_name, reference)


def _folder(source: str, tracking_uri: str) -> Path:
    """The artefact folder on this machine; one that lies elsewhere is fetched."""
    parts = urlsplit(source)
    if parts.scheme in ("", "file"):
        return Path(unquote(parts.path))
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(artifact_uri=source, tracking_uri=tracking_uri))


def _local_database(tracking_uri: str) -> Path | None:
    return Path(tracking_uri.removeprefix("sqlite:///")) if tracking_uri.startswith("sqlite:///") else None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
