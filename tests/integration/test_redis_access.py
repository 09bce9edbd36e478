"""Ways in: minimal ACL users, passwords, TLS, unix sockets; and what every refusal says."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from safetake.errors import ConfigError, SafetakeError, SourceError
from safetake.sources.redis import RedisSource
from safetake.sources.redis.wire import ServerGoneError, ServerRefusal
from tests.support.memory_writer import MemoryRepository
from tests.support.ports import free_port
from tests.support.redis_server import VERSIONS, TestServer, running
from tests.support.redis_source import capture, config, proven

every_version = pytest.mark.parametrize("version", VERSIONS)
REPLICATION = ["+psync", "+replconf", "+info", "+client|pause", "+client|unpause"]
SECRET = "s3cret-Passw0rd"


def user(server: TestServer, *rules: str) -> None:
    with server.client() as client:
        client.mset({f"k{i}": i for i in range(100)})
        client.execute_command("ACL", "SETUSER", "safetake", "on", f">{SECRET}", "resetkeys",
                               "-@all", *rules)  # fmt: skip


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(SECRET + "\n")
    return path


@every_version
def test_the_documented_user_suffices(version: str, tmp_path: Path, password_file: Path) -> None:
    with MemoryRepository() as repository, running(version, tmp_path / "live") as server:
        user(server, *REPLICATION)
        settings = config(
            server.url, username="safetake", password_file=password_file, method="replication"
        )
        assert RedisSource("queue", settings).inspect().ok
        captured = capture(
            settings, repository, tmp_path, prepared=lambda: server.client().set("late", 1)
        )
        assert captured.one_moment
        assert captured.facts["keys"] == 101
        assert captured.notes == []
        proven(captured, repository, tmp_path)


@pytest.mark.parametrize("missing", REPLICATION[:-1])
@pytest.mark.parametrize("version", VERSIONS[:1] + VERSIONS[-1:])
def test_every_permission_is_needed(
    version: str, missing: str, tmp_path: Path, password_file: Path
) -> None:
    with MemoryRepository() as repository, running(version, tmp_path / "live") as server:
        user(server, *(rule for rule in REPLICATION if rule != missing))
        settings = config(
            server.url, username="safetake", password_file=password_file, method="replication"
        )
        with pytest.raises(ServerRefusal, match="NOPERM") as caught:
            capture(settings, repository, tmp_path)
        assert all(rule in caught.value.hint for rule in REPLICATION)
        assert SECRET not in str(caught.value) + caught.value.hint


@every_version
def test_the_documented_user_for_scanning_suffices(
    version: str, tmp_path: Path, password_file: Path
) -> None:
    old = version == "redis-6.2"
    rules = ["~*", "+pttl", "+time"] if old else ["%R~*", "+pexpiretime"]
    with MemoryRepository() as repository, running(version, tmp_path / "live") as server:
        user(server, "+info", "+select", "+scan", "+dump", *rules)
        settings = config(server.url, username="safetake", password_file=password_file)
        captured = capture(settings, repository, tmp_path)
        assert not captured.one_moment
        assert captured.method == "scan"
        assert any("replication was refused" in note for note in captured.notes)
        assert SECRET not in repr(captured)
        proven(captured, repository, tmp_path)
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "safetake", "-dump")
        with pytest.raises(ServerRefusal, match="NOPERM") as caught:
            capture(settings, repository, tmp_path)
        assert "+dump" in caught.value.hint


def test_a_server_without_psync_is_scanned(tmp_path: Path) -> None:
    hide = ["--rename-command", "PSYNC", ""]
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "a", *hide) as server:
        server.client().set("k", 1)
        captured = capture(config(server.url), repository, tmp_path)
        assert captured.method == "scan"
        with pytest.raises(ServerRefusal, match="unknown command"):
            capture(config(server.url, method="replication"), repository, tmp_path)


def test_passwords(tmp_path: Path, password_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_PASSWORD", SECRET)
    with (
        MemoryRepository() as repository,
        running("redis-7.0", tmp_path / "live", password=SECRET) as server,
    ):
        server.client().set("k", 1)
        capture(config(server.url, password_file=password_file), repository, tmp_path)
        capture(config(server.url, password_env="QUEUE_PASSWORD"), repository, tmp_path)
        with pytest.raises(SafetakeError, match="NOAUTH") as caught:
            capture(config(server.url), repository, tmp_path)
        assert "password_file" in caught.value.hint
        monkeypatch.setenv("QUEUE_PASSWORD", "wrong-" + SECRET)
        with pytest.raises(SafetakeError, match="WRONGPASS") as caught:
            capture(config(server.url, password_env="QUEUE_PASSWORD"), repository, tmp_path)
        assert SECRET not in str(caught.value) + repr(caught.value) + caught.value.hint
        monkeypatch.delenv("QUEUE_PASSWORD")
        with pytest.raises(ConfigError, match="QUEUE_PASSWORD is not set"):
            capture(config(server.url, password_env="QUEUE_PASSWORD"), repository, tmp_path)
        state = RedisSource("queue", config(server.url, password_file=Path("/nowhere"))).inspect()
        assert not state.ok
        assert "cannot read" in state.summary


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis socket"
    with (
        MemoryRepository() as repository,
        running("redis-7.0", tmp_path / "live", "--unixsocket", str(path)) as server,
    ):
        server.client().set("k", 1)
        url = f"unix://{str(path).replace(' ', '%20')}?db=3"
        captured = capture(config(url), repository, tmp_path)
        assert captured.facts["databases"] == {"0": {"keys": 1, "expires": 0}}


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = throw_away_certificate(tmp_path)
    port = free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file",
               str(key), "--tls-ca-cert-file", str(certificate)]  # fmt: skip
    with MemoryRepository() as repository, running("redis-7.0", tmp_path / "a", *options) as server:
        server.client().mset({f"k{i}": "v" * 100 for i in range(20_000)})
        url = f"rediss://127.0.0.1:{port}"
        files = {"tls_ca": certificate, "tls_cert": certificate, "tls_key": key}
        captured = capture(
            config(url, **files),
            repository,
            tmp_path,
            prepared=lambda: server.client().set("late", 1),
        )
        assert captured.facts["keys"] == 20_001
        proven(captured, repository, tmp_path)
        with pytest.raises(ServerGoneError, match=r"TLS with rediss://127\.0\.0\.1") as caught:
            capture(config(url), repository, tmp_path)
        assert "tls_ca" in caught.value.hint
        with pytest.raises(SourceError):  # our certificate is missing
            capture(config(url, tls_ca=certificate), repository, tmp_path)
        monkeypatch.setattr("safetake.sources.redis.wire.CONNECT_SECONDS", 0.5)
        with pytest.raises(ServerGoneError, match="TLS"):  # the plain port
            capture(config(f"rediss://127.0.0.1:{server.port}", **files), repository, tmp_path)
        with pytest.raises(ServerGoneError):  # plain words to the TLS port
            capture(config(f"redis://127.0.0.1:{port}"), repository, tmp_path)


def throw_away_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"
