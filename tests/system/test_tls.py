"""Page, REST and WebSockets over TLS, with a certificate made as the README says."""

from __future__ import annotations

import json
import shlex
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import httpx
import pytest
from websockets.sync.client import connect as open_socket

from acquisition.errors import BadInput, ComponentFailed
from programs import write_settings
from service import wiring
from service.app import create_app
from service.client import connect
from service.settings import load_settings
from service_here import KEY, Served, served

README = Path(__file__).parents[2] / "README.md"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `certificate.pem` and `private_key.pem` of the README's line."""
    made = tmp_path_factory.mktemp("tls")
    line = "openssl req" + README.read_text(encoding="utf-8").partition("\nopenssl req")[2].partition("\n```")[0]
    subprocess.run(shlex.split(line.replace("\\\n", " ")), cwd=made, check=True, capture_output=True)
    return made


@pytest.fixture(scope="module")
def here(folder: Path) -> Iterator[Served]:
    pair = 'certificate = "certificate.pem"\nprivate_key = "private_key.pem"'
    with served(write_settings(folder, 32, serve=pair)) as service:
        yield service


def test_the_page_is_served_encrypted_and_its_cookie_never_travels_otherwise(here: Served, folder: Path) -> None:
    assert here.base_url.startswith("https://127.0.0.1:")
    trusting = ssl.create_default_context(cafile=folder / "certificate.pem")
    with httpx.Client(base_url=here.base_url, verify=trusting) as browser:
        cookie = browser.get("/", params={"key": KEY}).headers["set-cookie"].lower()
        assert "secure" in cookie and "httponly" in cookie
        assert browser.get("/").status_code == 200
        assert browser.get("/api/v1/status", headers={"Origin": here.base_url}).status_code == 200
        assert browser.get("/api/v1/status", headers={"Origin": "https://evil.example"}).status_code == 403
    address = here.base_url.replace("https", "wss", 1) + "/api/v1/status"
    with open_socket(address, ssl=trusting, additional_headers=here.headers, open_timeout=60) as line:
        assert line.recv(timeout=60)


def test_the_client_trusts_a_certificate_that_it_is_given_and_no_other(here: Served, folder: Path) -> None:
    with connect(here.base_url, KEY, verify=folder / "certificate.pem") as lab:
        assert lab.status().state == "idle"
    with connect(here.base_url, KEY, verify=False) as lab:
        assert lab.status().state == "idle"
    with pytest.raises(ComponentFailed, match=r"is not trusted.*`verify`"):
        connect(here.base_url, KEY)
    with pytest.raises(BadInput, match="PEM"):
        connect(here.base_url, KEY, verify=folder / "private_key.pem")


def test_the_standard_library_trusts_it_by_the_environment(
    here: Served, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urlopen(f"{here.base_url}/api/v1/health", timeout=60)
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "certificate.pem"))
    with urlopen(Request(f"{here.base_url}/api/v1/status", headers=here.headers), timeout=60) as answer:
        assert json.load(answer)["state"] == "idle"


def test_nothing_is_told_without_tls(here: Served) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(here.base_url.replace("https", "http", 1) + "/api/v1/health")


def test_any_address_may_be_served_with_tls(folder: Path) -> None:
    pair = {"certificate": str(folder / "certificate.pem"), "private_key": str(folder / "private_key.pem")}
    settings = load_settings(None, {"serve": {"host": "0.0.0.0", **pair}})
    create_app(settings, KEY)
    assert wiring.server(settings, KEY).config.is_ssl
    assert settings.serve.address.startswith("https://") and "0.0.0.0" not in settings.serve.address


@pytest.mark.parametrize(
    ("certificate", "private_key", "told"),
    [
        ("certificate.pem", None, "belong together"),
        ("certificate.pem", "certificate.pem", "cannot be used.*PEM"),
        ("private_key.pem", "private_key.pem", "cannot be used.*PEM"),
        ("nowhere.pem", "private_key.pem", "nowhere.pem.*cannot be used"),
        ("certificate.pem", "locked.pem", "without a passphrase"),
    ],
)
def test_a_pair_that_cannot_be_used_is_told_before_anything_starts(
    folder: Path, certificate: str, private_key: str | None, told: str
) -> None:
    locked = ["openssl", "pkey", "-in", "private_key.pem", "-aes256", "-passout", "pass:secret", "-out", "locked.pem"]
    subprocess.run(locked, cwd=folder, check=True, capture_output=True)
    pair = {"certificate": str(folder / certificate), "private_key": private_key and str(folder / private_key)}
    with pytest.raises(BadInput, match=told):
        wiring.check(load_settings(None, {"serve": pair}))
