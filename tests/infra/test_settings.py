"""Settings fail at start, in sentences that name the key."""

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from infra.errors import UserMistake
from infra.remote import Remote, address_file, announce
from infra.settings import find_home, load_settings, with_password


def refusal(home: Path, text: str = "") -> str:
    """What is said about settings with `text` added."""
    path = home / "understudy.toml"
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
    with pytest.raises(UserMistake) as caught:
        load_settings(home)
    return str(caught.value)


def test_a_name_is_all_that_must_be_said(home: Path) -> None:
    settings = load_settings(home)

    assert settings.creator.name == "Ada"
    assert settings.journal_url == f"sqlite:///{home / 'data' / 'journal.db'}"
    assert settings.creator_keys == {"telegram:1", "own:creator"}


def test_a_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserMistake, match="understudy init"):
        load_settings(tmp_path)


def test_the_environment_wins_over_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_API__PORT", "8400")

    assert load_settings(home).api.port == 8400


def test_a_secret_comes_from_its_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = home / "token"
    secret.write_text("a-long-enough-secret\n")
    monkeypatch.setenv("UNDERSTUDY_API__TOKEN", "another-long-enough-secret")
    monkeypatch.setenv("UNDERSTUDY_API__TOKEN_FILE", str(secret))

    token = load_settings(home).api.token

    assert token is not None
    assert token.get_secret_value() == "a-long-enough-secret"


def test_a_secret_file_that_is_named_must_be_readable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_API__TOKEN_FILE", str(home / "nowhere"))

    assert "UNDERSTUDY_API__TOKEN_FILE" in refusal(home)


def test_a_misspelt_variable_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_APY__PORT", "1")

    assert "UNDERSTUDY_APY__PORT" in refusal(home)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = 'red'\n", "unknown key 'creator.colour'"),
        ("[api]\nprot = 1\n", "unknown key 'api.prot'"),
        ("[api]\nport = 99999\n", "api.port"),
        ("[api]\nport = 'many'\n", "api.port"),
        ("[api]\nhost = '0.0.0.0'\n", "api.token must be set"),
        ("[api]\ntoken = 'changeme'\n", "api.token is a placeholder"),
        ("[api]\ntoken = '<your-token-goes-here>'\n", "api.token is a placeholder"),
        ("[judge]\ntoken = 'changeme'\n", "judge.token is a placeholder"),
        ("[voice]\ncontext_tokens = 512\n", "do not fit into voice.context_tokens (512)"),
        ("[journal]\nurl = 'mysql://localhost/x'\n", "must be sqlite:/// or postgresql"),
        ("[voice]\nurls = ['10.0.0.2:8321']\n", "must be the address of a server"),
        ("[voice]\nurls = ['http://ada:secret@10.0.0.2']\n", "must be the address of a server"),
        ("[voice]\nurls = ['http://10.0.0.2', 'http://10.0.0.2/']\n", "named twice"),
        ("[voice]\nurl = 'http://10.0.0.2'\nurls = ['http://10.0.0.3']\n", "cannot be both"),
        ("[voice]\nvllm = '/adapters'\n", "there are none"),
        ("[custom]\nbase = 'x'\ngguf = 'y'\nembedder = 'z'\n", "belong together"),
        ("[training]\nvalidation_share = 0.5\n", "training.validation_share"),
        ("[permissions.discord_training]\nreference = 'ticket 12'\n", "permissions.discord_training.date"),
        ("[creator\n", "cannot be read"),
    ],
)
def test_a_setting_that_cannot_work_is_named(home: Path, text: str, said: str) -> None:
    assert said in refusal(home, text)


@pytest.mark.parametrize(
    "text",
    ["[voice]\nurls = ['{}']\n", "[teacher]\nurl = 'ftp{}'\n", "[telegram]\napi = '{}'\n", "[graph]\nmodel = 'x{}'\n"],
)
def test_a_password_in_an_address_is_not_said(home: Path, text: str) -> None:
    said = refusal(home, text.format("http://ada:a-secret-word@10.0.0.2"))

    assert "10.0.0.2" in said
    assert "a-secret-word" not in said


def test_a_creator_id_without_a_platform_is_refused(tmp_path: Path) -> None:
    (tmp_path / "understudy.toml").write_text('[creator]\nname = "Ada"\nids = ["12345"]\n')

    with pytest.raises(UserMistake, match="PLATFORM:ID"):
        load_settings(tmp_path)


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "understudy.toml").write_bytes('[creator]\nname = "王"\n'.encode("gb18030"))

    with pytest.raises(UserMistake, match="cannot be read"):
        load_settings(tmp_path)


def test_training_settings_stand_in_for_the_preset(home: Path) -> None:
    (home / "understudy.toml").write_text('[creator]\nname = "Ada"\n[training]\nrank = 8\n')

    models = load_settings(home).models

    assert (models.base, models.rank, models.alpha) == ("smollm2-135m-instruct", 8, 32)


def test_a_custom_preset_names_its_own_models(home: Path) -> None:
    (home / "understudy.toml").write_text(
        'preset = "custom"\n[creator]\nname = "Ada"\n[custom]\nbase = "mine"\ngguf = "/m.gguf"\nembedder = "/e"\n'
    )

    assert load_settings(home).models.gguf == "/m.gguf"


def test_home_comes_from_the_option_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path))

    assert find_home(None) == tmp_path
    assert find_home(Path("here")) == Path("here")


def test_secrets_come_from_the_env_file_and_the_environment_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_API__PORT", "8400")
    token = "111111:from-the-file-0123456789"
    (home / ".env").write_text(
        f"UNDERSTUDY_TELEGRAM__TOKEN={token}\nUNDERSTUDY_API__PORT=9\nOTHER=1\n", encoding="utf-8"
    )
    monkeypatch.delenv("UNDERSTUDY_TELEGRAM__TOKEN", raising=False)

    settings = load_settings(home)

    assert settings.telegram.token is not None
    assert settings.telegram.token.get_secret_value() == token
    assert settings.api.port == 8400
    monkeypatch.delenv("UNDERSTUDY_TELEGRAM__TOKEN")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[discord]\napi = "https://discord.corn/api/v10"', "discord.api"),
        ('[discord]\napi = "http://discord.com/api/v10"', "discord.api"),
        ('[discord]\ngateway = "wss://gateway.discord.gg.evil.example/"', "discord.gateway"),
        ('[telegram]\napi = "https://api.telegram.org@evil.example"', "telegram.api"),
        ('[telegram]\nwebhook_url = "https://ada.example/hook"', "webhook_secret"),
        ('[discord]\ntoken = "your-token-here"', "discord.token"),
    ],
)
def test_a_platform_s_token_goes_to_the_platform_or_nowhere(home: Path, text: str, said: str) -> None:
    assert said in refusal(home, text)


def test_another_root_needs_the_explicit_word(home: Path) -> None:
    path = home / "understudy.toml"
    foreign = '[telegram]\napi = "https://bot-api.ada.example"\n[bot]\nforeign_roots = true\n'
    path.write_text(path.read_text(encoding="utf-8") + foreign, encoding="utf-8")

    assert load_settings(home).telegram.api == "https://bot-api.ada.example"


def test_an_empty_secret_file_sets_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment names the secrets of platforms that the twin is not on."""
    for name, text in (("DISCORD", "\n"), ("TELEGRAM", "12345:abcdefghijklmnop\n")):
        (home / name).write_text(text)
        monkeypatch.setenv(f"UNDERSTUDY_{name}__TOKEN_FILE", str(home / name))
    settings = load_settings(home)
    assert settings.discord.token is None
    assert settings.telegram.token is not None


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("postgresql://u@h/db", "postgresql://u:a%2Fb%40c@h/db"),
        ("postgresql+psycopg://u:old@[::1]:5432/db?x=1", "postgresql+psycopg://u:a%2Fb%40c@[::1]:5432/db?x=1"),
        ("redis://h:1/0", "redis://:a%2Fb%40c@h:1/0"),
        ("sqlite:////x/y.db", "sqlite:////x/y.db"),
        ("", ""),
    ],
)
def test_a_password_comes_to_the_address_of_its_server(url: str, whole: str) -> None:
    assert with_password(url, SecretStr("a/b@c")) == whole
    assert with_password(url, None) == url


def test_a_named_api_is_asked_and_is_not_taken_for_a_twin_that_runs_here(home: Path) -> None:
    config = home / "understudy.toml"
    config.write_text(config.read_text() + '[bot]\napi = "http://dashboard:8321"\n', encoding="utf-8")
    settings = load_settings(home)
    found = Remote.find(settings)
    assert found is not None
    assert found.url == "http://dashboard:8321"
    assert Remote.here(settings) is None
    announce(settings, url="http://127.0.0.1:1", token=None, pid=os.getpid())
    assert Remote.here(settings) is not None
    file = address_file(settings)
    file.write_text(file.read_text().replace(os.uname().nodename, "another-container"))
    assert Remote.here(settings) is None
