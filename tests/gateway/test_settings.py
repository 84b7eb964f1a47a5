"""The gateway's file and options."""

import hashlib

import pytest
from medimageparse_gateway.__main__ import main
from medimageparse_gateway.settings import Key, Settings, SettingsError, read_settings

KEY = f'[[keys]]\nname = "radiology"\nsha256 = "{"0" * 64}"\n'


@pytest.fixture
def file(tmp_path):
    return tmp_path / "gateway.toml"


def test_nothing_said_is_this_machine_only():
    assert read_settings(None) == Settings()
    assert Settings().host == "127.0.0.1"


def test_a_file_is_read_and_options_win(file):
    file.write_text(f'host = "0.0.0.0"\nport = 1\ntimeout_s = 5\n{KEY}requests_at_once = 2\n')
    settings = read_settings(file, port=2, triton=None)
    assert (settings.host, settings.port, settings.timeout_s, settings.triton) == ("0.0.0.0", 2, 5, Settings().triton)
    assert settings.keys == (Key("radiology", "0" * 64, requests_at_once=2),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('host = "0.0.0.0"', "127.0.0.1 only"),
        ('host = "::"', "127.0.0.1 only"),
        ('hosts = "127.0.0.1"', "no setting 'hosts'"),
        ('port = "8080"', "port is of another type: write an int"),
        ("port = true", "port is of another type"),
        ("timeout_s = 0", "timeout_s is above 0"),
        ("timeout_s = inf", "timeout_s is above 0"),
        ("timeout_s = nan", "timeout_s is above 0"),
        ("max_body_bytes = -1", "max_body_bytes is above 0"),
        ('tls_certificate = "a.pem"', "go together"),
        ('keys = "secret"', r"write \[\[keys\]\]"),
        ('[[keys]]\nname = "a"', "lacks sha256"),
        (f'[[keys]]\nname = "a b"\nsha256 = "{"0" * 64}"', "letters, digits"),
        ('[[keys]]\nname = "a"\nsha256 = "secret"', "64 hexadecimal"),
        (KEY + KEY, "two keys have one name"),
        (KEY + "requests_at_once = 0", "at least 1"),
        (KEY + "password = 1", "no setting 'password'"),
        ("port =", "not a TOML file"),
        ('access_log = "loud"', "access_log is one of off, text, json"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(file, text, words):
    file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        read_settings(file)


@pytest.mark.parametrize("arguments", [["--config", "nowhere.toml"], ["--host", "0.0.0.0"], ["--triton", "nowhere"]])
def test_the_program_says_in_a_sentence_why_it_does_not_start(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("medimageparse_gateway: ")


def test_a_new_key_opens_by_its_hash_and_is_not_in_the_file(file, capsys):
    assert main(["key", "radiology"]) == 0
    printed = capsys.readouterr()
    file.write_text(printed.out)
    (key,) = read_settings(file).keys
    (told,) = printed.err.split()[-1:]
    assert key.sha256 == hashlib.sha256(told.encode()).hexdigest()
    assert told not in printed.out


def test_a_key_with_a_name_that_cannot_be_is_refused(capsys):
    assert main(["key", "radiology and\nmore"]) == 2
    assert "letters, digits" in capsys.readouterr().err
