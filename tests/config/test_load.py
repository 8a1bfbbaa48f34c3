"""Settings: where they come from, which wins, and what is said of one that cannot be used."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest

from weft import config
from weft.config import SettingError, Settings


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weft.toml but one that the test writes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_set_gives_the_defaults():
    assert config.load({}) == Settings()


def test_the_environment_wins_over_the_file_and_the_file_over_defaults(empty_folder):
    (empty_folder / "weft.toml").write_text(
        'registry = "file:1"\ngateway_listen = "file:2"\ntrace_sample = 0.25\nagents_drain = 3\n'
    )
    found = config.load({"WEFT_REGISTRY": "environment:1"})
    assert found.registry == "environment:1"
    assert found.gateway_listen == "file:2"
    assert found.trace_sample == 0.25
    assert found.agents_drain == timedelta(seconds=3)
    assert found.gateway_grpc_listen == Settings().gateway_grpc_listen


def test_an_empty_variable_is_as_good_as_none(empty_folder):
    (empty_folder / "weft.toml").write_text('registry = "file:1"\n')
    assert config.load({"WEFT_REGISTRY": ""}).registry == "file:1"


def test_the_file_may_be_named(empty_folder):
    (empty_folder / "weft.toml").write_text('registry = "default:1"\n')
    (empty_folder / "other.toml").write_text('registry = "other:1"\n')
    assert config.load({"WEFT_CONFIG": "other.toml"}).registry == "other:1"


def test_weft_s_own_name_wins_over_the_standard_one():
    standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://standard:4317"}
    assert config.load(standard).otlp_endpoint == "http://standard:4317"
    both = {**standard, "WEFT_OTLP_ENDPOINT": "http://own:4317"}
    assert config.load(both).otlp_endpoint == "http://own:4317"


def test_the_pipeline_of_the_support_fleet_is_orchestrated_unless_it_is_said_otherwise():
    assert config.load({}).support_pipeline == "orchestrated"
    assert config.load({"WEFT_SUPPORT_PIPELINE": "in-process"}).support_pipeline == "in-process"
    with pytest.raises(SettingError, match="WEFT_SUPPORT_PIPELINE"):
        config.load({"WEFT_SUPPORT_PIPELINE": "off"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("2s", 2),
        ("1.5m", 90),
        ("1h", 3600),
        ("2d", 172_800),
        ("4", 4),
        (" 7 s", 7),
        ("0.5", 0.5),
    ],
)
def test_durations(text, seconds):
    found = config.load({"WEFT_REGISTRY_LEASE_TTL": text})
    assert found.registry_lease_ttl == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("WEFT_GATEWAY_MAX_BODY", "4 MiB", "gateway_max_body (WEFT_GATEWAY_MAX_BODY): "),
        ("WEFT_TRACE_SAMPLE", "often", "trace_sample (WEFT_TRACE_SAMPLE): "),
        ("WEFT_AGENTS_DRAIN", "soon", "agents_drain (WEFT_AGENTS_DRAIN): "),
        ("WEFT_AGENTS_DRAIN", "nan", "agents_drain (WEFT_AGENTS_DRAIN): "),
        (
            *("WEFT_GATEWAY_AUTH", "maybe"),
            "gateway_auth (WEFT_GATEWAY_AUTH): must be one of auto, off, on, keys, jwt",
        ),
        (
            *("WEFT_LOG_LEVEL", "info"),
            "log_level (WEFT_LOG_LEVEL): must be one of DEBUG, INFO, WARNING, ERROR",
        ),
    ],
)
def test_a_value_that_cannot_be_read_is_named_with_its_source(variable, value, said):
    with pytest.raises(SettingError) as refused:
        config.load({variable: value})
    assert str(refused.value).startswith(said)


def test_a_bad_value_of_the_file_is_told_to_be_there(empty_folder):
    (empty_folder / "weft.toml").write_text("gateway_breaker_volume = [1]\n")
    with pytest.raises(SettingError) as refused:
        config.load({})
    assert str(refused.value).startswith("gateway_breaker_volume (the settings file): ")


def test_a_bad_value_that_is_overridden_does_no_harm(empty_folder):
    (empty_folder / "weft.toml").write_text('trace_sample = "often"\n')
    assert config.load({"WEFT_TRACE_SAMPLE": "0.5"}).trace_sample == 0.5


def test_a_setting_that_does_not_exist_is_named(empty_folder):
    (empty_folder / "weft.toml").write_text('registri = "x:1"\n')
    with pytest.raises(SettingError, match="unknown setting 'registri'"):
        config.load({})


def test_a_file_that_is_no_toml_is_named_with_the_place(empty_folder):
    (empty_folder / "weft.toml").write_text("registry = \n")
    with pytest.raises(SettingError, match=r"weft\.toml: .*line 1"):
        config.load({})


def test_a_named_file_must_exist():
    with pytest.raises(SettingError, match="WEFT_CONFIG: there is no file absent.toml"):
        config.load({"WEFT_CONFIG": "absent.toml"})


def test_settings_travel_to_a_child_process_by_its_environment():
    given = Settings(
        data=Path("/somewhere/with a space"),
        database_url="postgresql://u:p%40@h/db?host=/run/pg",
        redis_url="unix:///run/redis.sock?db=3",
        registry_lease_ttl=timedelta(milliseconds=1_500),
        registry_cold_start=timedelta(0),
        agents_drain=timedelta(days=1, microseconds=1),
        zone="eu-1",
        gateway_auth="keys",
        gateway_max_body=1,
        gateway_breaker_ratio=0.1,
        trace_sample=0.01,
        otlp_endpoint="http://collector:4317",
        log_format="json",
        log_level="ERROR",
    )
    changed = {f.name for f in dataclasses.fields(given) if getattr(given, f.name) != f.default}
    assert len(changed) >= 14
    assert config.load(config.environment(given)) == given


def test_data_is_kept_where_the_system_says(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/ada/data")
    assert config.default_data() == Path("/home/ada/data/weft")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert config.default_data() == Path("/home/ada/.local/share/weft")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert config.default_data() == Path("/var/lib/weft")


REMOTES = """
[remotes.weather]
mcp = "https://weather.example.com/mcp"
token_file = "/run/secrets/weather"
scopes = ["weather.read"]
timeout = 5

[remotes.clerk]
a2a = "http://localhost:9000"
"""


def test_remotes_are_tables_and_come_through_the_environment(empty_folder):
    (empty_folder / "weft.toml").write_text(REMOTES)
    found = config.load({})
    weather = found.remotes["weather"]
    assert (weather.protocol, weather.timeout, weather.scopes) == ("mcp", 5.0, ("weather.read",))
    assert found.remotes["clerk"].url == "http://localhost:9000"
    (empty_folder / "weft.toml").unlink()
    assert config.load(config.environment(found)) == found


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('[remotes]\nx = "y"', "must be a table"),
        ("[remotes.x]", "give its URL"),
        ('[remotes.x]\nmcp = "https://a"\na2a = "https://a"', "give its URL"),
        ('[remotes.X]\nmcp = "https://a"', "no name for an agent"),
        ('[remotes.x]\nmcp = "ftp://a"', "must begin with https"),
        ('[remotes.x]\nmcp = "http://a"', "plaintext"),
        ('[remotes.x]\nmcp = "https://u:p@a"', "no password"),
        ('[remotes.x]\nmcp = "https://a"\ncolour = 1', "no setting 'colour'"),
        ('[remotes.x]\nmcp = "https://a"\ntimeout = "soon"', "timeout cannot be"),
        ('[remotes.x]\nmcp = "https://a"\ntimeout = 0', "more than 0"),
        ('[remotes.x]\nmcp = "https://a"\nscopes = [1]', "scopes cannot be"),
        ('[remotes.x]\nmcp = "https://a"\nplaintext = 1', "plaintext cannot be"),
        ('[remotes.x]\nmcp = "https://a"\ntoken_file = "a"\ntoken_env = "b"', "give one"),
        ('[remotes.x]\nmcp = "https://a"\nheader = "a b"', "no name of a header"),
    ],
)
def test_a_remote_that_cannot_be_used_is_named(empty_folder, table, says):
    (empty_folder / "weft.toml").write_text(table)
    with pytest.raises(SettingError, match="remotes") as wrong:
        config.load({})
    assert says in str(wrong.value)


@pytest.mark.parametrize("table", ["[remotes.x]\nmcp", "[endpoints.x]\nurl"])
def test_what_a_url_that_cannot_be_used_holds_is_not_told(empty_folder, table):
    (empty_folder / "weft.toml").write_text(f'{table} = "htps://u:hunter2@a"')
    with pytest.raises(SettingError, match="url must begin with https://") as wrong:
        config.load({})
    assert "hunter2" not in str(wrong.value)
