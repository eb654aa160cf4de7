"""Passwords in URLs reach neither the log nor an error's line."""

from __future__ import annotations

import pytest

from ingest_service.config import SettingError, load_settings
from ingest_service.config.masking import masked_database_url
from ingest_service.config.settings import SETTINGS

_PASSWORDS = ["hunter2", "a/b", "a?b#c", "a@b", "[x", "%40", "p:q", "ü"]


@pytest.mark.parametrize("password", _PASSWORDS)
def test_of_the_database(password: str) -> None:
    url = f"postgresql+asyncpg://me:{password}@db.example:5432/models?ssl=require"
    try:
        said = str(load_settings({"INGEST_DATABASE_URL": url}).public())
        assert "postgresql+asyncpg://me:***@db.example:5432/models?ssl=require" in said
    except SettingError as error:
        said = str(error)
    assert password not in said


def test_of_the_database_as_an_argument() -> None:
    url = "postgresql+asyncpg://db.example/models?password=hunter2&ssl=require"
    said = load_settings({"INGEST_DATABASE_URL": url}).public()["database_url"]
    assert said == "postgresql+asyncpg://db.example/models?password=***&ssl=require"


@pytest.mark.parametrize("name", ["sslpassword", "passfile", "token", "PASSWORD"])
def test_only_harmless_arguments_are_shown(name: str) -> None:
    said = masked_database_url(f"postgresql+asyncpg://h/n?sslmode=require&{name}=hunter2&sslkey=/a/key.pem")
    assert said == f"postgresql+asyncpg://h/n?sslmode=require&{name}=***&sslkey=/a/key.pem"


@pytest.mark.parametrize("text", ["a=http://h/?key=hunter2", "a=http://h/#hunter2", "a=hunter2@h"])
def test_of_targets_that_are_refused(text: str) -> None:
    with pytest.raises(SettingError) as caught:
        load_settings({"INGEST_TARGETS": text})
    assert "hunter2" not in str(caught.value)
    assert "***" in str(caught.value)


def test_a_token_as_the_user_of_a_target() -> None:
    assert load_settings({"INGEST_TARGETS": "a=http://hunter2@h:1"}).public()["targets"] == "a=http://***@h:1"


@pytest.mark.parametrize("name", ["sslmodus", "dsn", "password2"])
def test_an_argument_that_postgresql_has_not(name: str) -> None:
    with pytest.raises(SettingError, match=f"'{name}' is no argument of PostgreSQL's.*sslmode, sslrootcert"):
        load_settings({"INGEST_DATABASE_URL": f"postgresql+asyncpg://h/n?{name}=hunter2"})


def test_of_targets() -> None:
    settings = load_settings({"INGEST_TARGETS": "a=http://me:hunter2@h:1,b=https://:secret@i"})
    assert settings.public()["targets"] == "a=http://***@h:1,b=https://***@i"
    # The service itself needs them.
    assert settings.targets[0].url == "http://me:hunter2@h:1"


@pytest.mark.parametrize("password", _PASSWORDS)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DATABASE_URL", "postgres://me:{}@h/n"),
        ("DATABASE_URL", "postgresql+asyncpg://me:{}@h:port/n"),
        ("TARGETS", "a=ftp://me:{}@h"),
        ("TARGETS", "a=http://me:{}@h,a=http://me:{}@h"),
    ],
)
def test_of_a_setting_that_is_refused(name: str, text: str, password: str) -> None:
    with pytest.raises(SettingError) as caught:
        load_settings({f"INGEST_{name}": text.format(password, password)})
    assert password not in str(caught.value)
    assert str(caught.value).startswith(f"INGEST_{name}=")


def test_what_is_public_has_every_setting_and_only_text() -> None:
    public = load_settings({}).public()
    assert len(public) == len(SETTINGS)
    assert all(isinstance(value, str) for value in public.values())
    assert public["listen"] == "127.0.0.1:50051"
    assert public["targets"] == "default=http://127.0.0.1:11434"
