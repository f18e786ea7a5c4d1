"""The settings of a server: read once, at the edge, from the environment that `serving.launch` wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
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
    timing_model: str = "champion"
    temperature: float = 0.05
    """Of the softmax over values, as a share of what there is to gain; see serving.policy."""
    epsilon: float = 0.05
    """Share of decisions drawn uniformly, to learn from."""
    exploration: str = "softmax"
    """Or squarecb: inverse-gap weighting."""
    gamma: float = 1000.0
    """How quickly squarecb leaves worse actions alone."""
    loss_budget: float = float("inf")
    """Most that exploring may cost per decision, expected, in the catalogue's currency."""
    reload_seconds: float = 10.0
    """How often it is looked whether an alias has moved to another version; 0: never, restart to take it up."""
    ledger_url: str = field(default="", repr=False)  # it may hold a password
    """postgresql://user@host/database, needed by servers on more than one machine; empty: a file in the home."""

    online_url: str = field(default="", repr=False)  # it may hold a password
    """redis://host:6379/0, where `features build` put the newest states; empty: they are in a file of the home."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], folder: Path) -> Settings:
        """NEXTBEST_HOME, NEXTBEST_TEMPERATURE, … ; `folder` is the working folder. InputError for a wrong value."""
        given: dict[str, Path | str | float] = {
            "home": Path(environment.get(f"{PREFIX}HOME") or ".nextbest"),
            "tracking_uri": default_tracking_uri(environment, folder),
        }
        kinds = {"str": str, "float": float}
        for setting in fields(cls)[2:]:
            name = PREFIX + setting.name.upper()
            if name in environment:
                try:
                    given[setting.name] = kinds[str(setting.type)](environment[name])
                except ValueError:
                    raise InputError(
                        f"{name} must be of type {setting.type}, however it is {environment[name]!r}"
                    ) from None
        if not 0 <= float(str(given.get("reload_seconds", 0.0))) < float("inf"):
            raise InputError(
                f"{PREFIX}RELOAD_SECONDS must be 0 or more, however it is {given['reload_seconds']}; 0 turns it off"
            )
        url = str(given.get("ledger_url", ""))
        if url and not url.startswith(("postgresql://", "postgres://")):
            # The rest of it is not shown: it may hold a password.
            raise InputError(
                f"{PREFIX}LEDGER_URL must be postgresql://user@host/database, however it begins with {url[:8]!r}"
            )
        online = str(given.get("online_url", ""))
        if online and not online.startswith(("redis://", "rediss://", "unix://")):
            raise InputError(
                f"{PREFIX}ONLINE_URL must be like redis://host:6379/0, however it begins with {online[:8]!r}; leave it "
                "empty for a file in the home"
            )
        return cls(**given)  # type: ignore[arg-type]  # names and types come from the fields themselves

    def to_environment(self) -> dict[str, str]:
        """The environment from which `from_environment` reads these settings again."""
        values = {PREFIX + setting.name.upper(): str(getattr(self, setting.name)) for setting in fields(self)}
        values[TRACKING] = values.pop(f"{PREFIX}TRACKING_URI")
        return values | {f"{PREFIX}HOME": str(self.home.resolve())}
