"""Settings travel through the environment unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.errors import InputError
from serving.settings import Settings


def test_settings_survive_the_environment() -> None:
    settings = Settings(
        Path("/srv/home"),
        "sqlite:////srv/mlflow.db",
        product_model="7",
        channel_model="challenger",
        temperature=0.25,
        epsilon=0.125,
        reload_seconds=0.5,
        ledger_url="postgresql://h/b",
    )
    assert Settings.from_environment(settings.to_environment(), Path("/elsewhere")) == settings


def test_an_empty_environment_gives_the_documented_defaults(tmp_path: Path) -> None:
    settings = Settings.from_environment({}, tmp_path)
    assert settings.home == Path(".nextbest")
    assert settings.tracking_uri == f"sqlite:///{tmp_path.resolve()}/mlruns/mlflow.db"


def test_a_wrong_number_names_its_variable() -> None:
    with pytest.raises(InputError, match="NEXTBEST_EPSILON"):
        Settings.from_environment({"NEXTBEST_EPSILON": "a lot"}, Path())


def test_a_wrong_ledger_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="NEXTBEST_LEDGER_URL") as caught:
        Settings.from_environment({"NEXTBEST_LEDGER_URL": "mysql://nextbest:secret@host/bank"}, Path())
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(Settings(Path(), "", ledger_url="postgresql://nextbest:secret@host/bank"))


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf"])
def test_polling_needs_a_number_of_seconds_that_can_be_waited(seconds: str) -> None:
    with pytest.raises(InputError, match="NEXTBEST_RELOAD_SECONDS"):
        Settings.from_environment({"NEXTBEST_RELOAD_SECONDS": seconds}, Path())
