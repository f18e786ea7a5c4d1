"""The settings of a server: read once, at the edge, from the environment that `serving.launch` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from features.errors import InputError

PREFIX = "NEXTBEST_"
TRACKING = "MLFLOW_TRACKING_URI"


def default_tracking_uri(environment: Mapping[str, str], folder: Path) -> str:
    """MLflow's database: what the environment says, else `mlruns/mlflow.db` in `folder` (the working folder)."""
    return environment.get(TRACKING) or f"sqlite:///{folder.resolve() / 'mlruns' / 'mlflow.db'}"


@dataclass(frozen=True)
class Settings:
    """home: where features and ledger live. The rest has defaults that suit one process on two cores."""

    home: Path
    tracking_uri: str
    product_model: str = "champion"
    """Alias, version number or run id in the registry."""
    channel_model: str = "champion"
    temperature: float = 0.05
    """Of the softmax over values, as a share of what there is to gain; see serving.policy."""
    epsilon: float = 0.05
    """Share of decisions drawn uniformly, to learn from."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], folder: Path) -> Settings:
        """NEXTBEST_HOME, NEXTBEST_TEMPERATURE, … ; `folder` is the working folder. InputError for a wrong value."""
        given: dict[str, Path | str | float] = {
            "home": Path(environment.get(f"{PREFIX}HOME") or ".nextbest"),
            "tracking_uri": default_tracking_uri(environment, folder),
        }
        kinds = {"str": str, "float": float}
        for field in fields(cls)[2:]:
            name = PREFIX + field.name.upper()
            if name in environment:
                try:
                    given[field.name] = kinds[str(field.type)](environment[name])
                except ValueError:
                    raise InputError(
                        f"{name} must be of type {field.type}, however it is {environment[name]!r}"
                    ) from None
        return cls(**given)  # type: ignore[arg-type]  # names and types come from the fields themselves

    def to_environment(self) -> dict[str, str]:
        """The environment from which `from_environment` reads these settings again."""
        values = {PREFIX + field.name.upper(): str(getattr(self, field.name)) for field in fields(self)}
        values[TRACKING] = values.pop(f"{PREFIX}TRACKING_URI")
        return values | {f"{PREFIX}HOME": str(self.home.resolve())}
