"""Unknown, mistyped and impossible settings are refused with a helpful message."""

import re

import pytest

from device import config


def load(tmp_path, text):
    path = tmp_path / "device.toml"
    path.write_text(text)
    return config.load(path)


def test_defaults_are_valid_and_carry_advice():
    settings = config.load()
    assert settings.device.id and settings.camera.kind == "picamera2" and settings.spool.when_full == "oldest"
    lines = [line for line in config.DEFAULTS.read_text().splitlines() if re.match(r"\w+ = ", line)]
    assert len(lines) > 35
    bare = [line for line in lines if "#" not in line]
    assert bare == [], "each setting carries its advice"


def test_owners_file_needs_only_differences(tmp_path):
    settings = load(tmp_path, '[device]\nid = "porch-1"\n[capture]\ninterval_s = 5\n')
    assert settings.device.id == "porch-1" and settings.capture.interval_s == 5.0 and settings.camera.quality == 85


@pytest.mark.parametrize(
    "text, words",
    [
        pytest.param(
            "[camera]\nqualty = 80", "camera.qualty is not known; did you mean camera.quality?", id="unknown key"
        ),
        pytest.param("[camra]\nquality = 80", r"\[camra\] is not known; did you mean camera", id="unknown section"),
        pytest.param("interval_s = 3", r"\[interval_s\] is not known", id="key outside a section"),
        pytest.param('[camera]\nquality = "high"', "camera.quality = 'high' should be a int, like 85", id="type"),
        pytest.param("[store]\nallow_http = 1", "should be a bool", id="1 is not true"),
        pytest.param("[camera]\nquality = 101", "1 to 100", id="range"),
        pytest.param("[camera]\nrotation = 45", "one of 0, 90, 180, 270", id="rotation"),
        pytest.param('[camera]\nkind = "webcam"', "one of picamera2, picamera, folder, simulated", id="kind"),
        pytest.param('[camera]\nkind = "folder"', "camera.folder", id="folder without a folder"),
        pytest.param("[camera]\nsize = [600]", "whole numbers of pixels", id="size"),
        pytest.param('[device]\nid = "a/b"', "device.id", id="id"),
        pytest.param('[device]\nlabel = "big_package"', "underscore", id="label"),
        pytest.param("[device]\nposition = [91.0, 0.0]", "on the globe", id="position"),
        pytest.param('[capture]\nactive_hours = "6-22"', "HH:MM-HH:MM", id="hours"),
        pytest.param("[capture]\ninterval_s = -1.0", "0 or more", id="negative"),
        pytest.param("[capture]\ninterval_s = nan", "0 or more", id="nan"),
        pytest.param("[upload]\ntimeout_s = 0", "more than 0", id="zero"),
        pytest.param('[store]\nurl = "bucket/folder"', "full path or a URL", id="no scheme"),
        pytest.param('[store]\nurl = "volume://host/main"', "catalog/schema/volume", id="volume"),
        pytest.param("[camera", "not valid TOML", id="TOML"),
    ],
)
def test_wrong_setting_raises_helpful_error(tmp_path, text, words):
    with pytest.raises(config.ConfigError, match=words) as error:
        load(tmp_path, text)
    assert "device.toml" in str(error.value)


@pytest.mark.parametrize(
    "url", ["s3://AKIA:topsecret@bucket/x", "az://container?sig=topsecret", "volume://token:topsecret@host/a/b/c"]
)
def test_credentials_in_url_are_refused_and_not_repeated(tmp_path, url):
    with pytest.raises(config.ConfigError, match="credentials belong elsewhere") as error:
        load(tmp_path, f'[store]\nurl = "{url}"')
    assert "topsecret" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    ["/mnt/usb", "file:///mnt/usb", "s3://b/f", "abfss://c@a.dfs.core.windows.net/f", "gs://b", "volume://h/c/s/v/f"],
)
def test_store_url_is_accepted(tmp_path, url):
    assert load(tmp_path, f'[store]\nurl = "{url}"').store.url == url


@pytest.mark.parametrize(
    "section, values, words",
    [
        ("model", {"url": "mlflow+ftp://host"}, "model.url"),
        ("model", {"url": "databricks://host/c/s", "name": "a.b.c"}, "model.url"),
        ("model", {"url": "mlflow+https://user:pa55word@host"}, "credentials belong elsewhere"),
        ("model", {"url": "mlflow+https://host", "name": ""}, "model.name"),
        ("model", {"alias": "../x"}, "model.alias"),
        ("feedback", {"send": "some"}, "all, chosen, none"),
        ("feedback", {"margin": 1.5}, "0 to 1"),
        ("act", {"mqtt": "mqtt://user:pa55word@broker/t"}, "credentials belong elsewhere"),
        ("act", {"webhook": "ring.example"}, "http://host"),
        ("act", {"command": [1]}, "list of words"),
        ("score", {"threads": 0}, "more than 0"),
    ],
    ids=str,
)
def test_score_refuses_wrong_setting_without_secrets(agent, section, values, words):
    agent.configure(**{section: values})
    done = agent.run("score", "--once", check=False)
    assert done.returncode == 78 and words in done.stderr and "pa55word" not in done.stderr


@pytest.mark.parametrize(
    "url", ["/edge", "s3://b/edge", "volume://h/c/s/v/edge", "mlflow+https://h:5000", "databricks://h/c/s/v/edge"]
)
def test_model_url_is_accepted(agent, url):
    agent.configure(model={"url": url})
    assert config.load(agent.config).model.url == url
