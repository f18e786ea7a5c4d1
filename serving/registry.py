"""From MLflow's registry to a model that answers: alias, version or run → artefact folder → ChoiceModel.

MLflow is imported inside, and only where its database exists: merely connecting would create one.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from features.errors import ArtefactError, NoSuchModel
from features.schema import RowSchema
from serving.errors import RegistryUnreachable

if TYPE_CHECKING:
    from serving.choice import ChoiceModel
    from serving.timing import TimingModel

CHAMPION = "champion"
PRIOR = "prior"
"""Alias of the prior that answers when the champion cannot; where training set it."""
PRODUCT_MODEL = "next-best-product"
CHANNEL_MODEL = "channel-choice"
TIMING_MODEL = "send-time"
MOST_BYTES = 1 << 30
"""The largest artefact that is taken up while serving."""
MOST_FILES = 64
_NOT_THERE = frozenset({"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"})
"""What MLflow says of a model, version or alias that it does not have. Anything else: it could not be asked."""


@dataclass(frozen=True)
class Loaded:
    """A model and where in the registry it came from."""

    model: ChoiceModel
    name: str
    version: str
    run_id: str
    digest: str = ""
    """SHA-256 of its manifest, which has that of each of its files."""


def champion(model_name: str, tracking_uri: str) -> Loaded:
    """The model with the alias `champion`; ArtefactError with the reason where there is none or it is damaged."""
    return resolve(model_name, CHAMPION, tracking_uri)


def resolve(model_name: str, reference: str, tracking_uri: str) -> Loaded:
    """Load a registered model by alias, version number or run id; ArtefactError says what is missing or damaged."""
    from serving.choice import MANIFEST, ChoiceModel

    registry = Registry(tracking_uri)
    found = registry.find(model_name, reference)
    folder = registry.folder(found)
    model = ChoiceModel.load(folder)  # the manifest is one, and holds
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    return Loaded(model, model_name, found.version, found.run_id, digest)


def resolve_timing(reference: str, tracking_uri: str) -> tuple[TimingModel, str]:
    """The timing model of that alias, version or run, and its version; ArtefactError where there is none to use."""
    from serving.timing import TimingModel

    registry = Registry(tracking_uri)
    found = registry.find(TIMING_MODEL, reference)
    return TimingModel.load(registry.folder(found)), found.version


@dataclass(frozen=True)
class Registered:
    """A version of a model, as the registry has it; nothing of its artefacts was read."""

    model_name: str
    version: str
    run_id: str
    source: str
    """Where its artefacts lie: a path or an address."""


class Registry:
    """The registry at one MLflow tracking address; kept, its answers cost milliseconds, and `stamp` microseconds."""

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._database = _local_database(tracking_uri)
        self._client: Any = None

    def stamp(self) -> object | None:
        """Changes whenever the registry may have changed; None where only asking it can tell.

        A SQLite database counts its transactions in bytes 24 to 28 of its file; in write-ahead mode the log grows.
        """
        if self._database is None:
            return None
        try:
            with self._database.open("rb") as file:
                file.seek(24)
                return file.read(4), *map(
                    _changed, (self._database, self._database.with_name(f"{self._database.name}-wal"))
                )
        except OSError:
            return "no database"

    def find(self, model_name: str, reference: str) -> Registered:
        """The version that an alias, a version number or a run names.

        NoSuchModel where there is none, RegistryUnreachable where the registry does not answer.
        """
        if self._database is not None and not self._database.is_file():
            raise NoSuchModel(
                f"there is no MLflow database at {self._database}; train with `nextbest train {model_name}`"
            )
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client = self._client or MlflowClient(self._uri, self._uri)
            found = _version(self._client, model_name, reference)
        except MlflowException as error:
            text = f"{model_name} has no {reference!r} in the registry at {self._uri}: {error.message}"
            if error.error_code in _NOT_THERE:
                raise NoSuchModel(f"{text}; train with `nextbest train {model_name}`") from error
            raise RegistryUnreachable(text) from error
        return Registered(model_name, str(found.version), str(found.run_id), str(found.source))

    def folder(self, registered: Registered) -> Path:
        """The artefact folder on this machine; one that lies elsewhere is fetched."""
        return _local_folder(registered.source) or self._download(registered, None)

    def fetch(self, registered: Registered, into: Path) -> Path:
        """A copy of the artefact in a new folder under `into`, which nobody else changes.

        ArtefactError for what is no folder of ordinary files, or too large: nothing of it was read then.
        """
        folder = _local_folder(registered.source)
        if folder is None:
            folder = self._download(registered, into)
            _check_ordinary(folder)
            return folder
        _check_ordinary(folder)
        copy = into / "artefact"
        copy.mkdir(parents=True)
        for path in sorted(folder.rglob("*")):  # a folder comes before what lies in it
            if path.is_dir():
                (copy / path.relative_to(folder)).mkdir()
            else:
                shutil.copyfile(path, copy / path.relative_to(folder))
        return copy

    def _download(self, registered: Registered, into: Path | None) -> Path:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        if into is not None:
            into.mkdir(parents=True)
        try:
            return Path(
                download_artifacts(
                    artifact_uri=registered.source, tracking_uri=self._uri, dst_path=None if into is None else str(into)
                )
            )
        except MlflowException as error:
            raise RegistryUnreachable(f"{registered.source} cannot be fetched: {error.message}") from error


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


def _local_folder(source: str) -> Path | None:
    """The folder that `source` names, where it is one of this machine's."""
    parts = urlsplit(source)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def _check_ordinary(folder: Path) -> None:
    """ArtefactError unless `folder` holds ordinary files only, not too many and not too large.

    Some may lie one folder deeper, as those of an ensemble's members do: in folders named by letters alone.
    """
    try:
        top = sorted(folder.iterdir())
        within = [path for path in top if path.name.isalpha() and path.is_dir() and not path.is_symlink()]
        paths = [path for path in top if path not in within]
        paths += (path for member in within for path in sorted(member.iterdir()))
    except OSError as error:
        raise ArtefactError(f"{folder} is not a folder that can be read: {error.strerror}; train again") from error
    odd = [path.name for path in paths if path.is_symlink() or not path.is_file()]
    if odd:
        raise ArtefactError(f"a model is a folder of files, however {odd[0]} in {folder} is none; train again")
    size = sum(path.stat().st_size for path in paths)
    if size > MOST_BYTES or len(paths) > MOST_FILES:
        raise ArtefactError(
            f"a model has at most {MOST_FILES} files and {MOST_BYTES >> 20} MB, however {folder} has {len(paths)} and "
            f"{size >> 20} MB; train a smaller one"
        )


def _changed(path: Path) -> tuple[int, int, int]:
    """Changes when the file does; zeros where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _local_database(tracking_uri: str) -> Path | None:
    return Path(tracking_uri.removeprefix("sqlite:///")) if tracking_uri.startswith("sqlite:///") else None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
