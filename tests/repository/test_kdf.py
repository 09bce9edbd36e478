"""scrypt: the same bytes whoever works them out, begun early or not."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetake.repository import kdf
from safetake.repository.crypto import MasterKey
from safetake.repository.keys import seal_key

PARAMETERS = (16, 8, 2)


@given(st.text(), st.binary(max_size=80), st.sampled_from([(2, 1, 1), (16, 8, 1), (64, 2, 3)]))
def test_every_implementation_gives_what_openssl_gives(
    password: str, salt: bytes, parameters: tuple[int, int, int]
) -> None:
    n, r, p = parameters
    raw = password.encode("utf-8", "surrogateescape")
    wanted = hashlib.scrypt(raw, salt=salt, n=n, r=r, p=p, dklen=64)
    assert kdf.derive(password, n, r, p, salt) == wanted
    assert kdf._openssl(raw, salt, n, r, p, 1 << 20) == wanted


def key_file(**changed: object) -> tuple[str, bytes]:
    document = json.loads(seal_key(MasterKey.generate(), "password"))
    n, r, p = PARAMETERS
    content = json.dumps({**document, "N": n, "r": r, "p": p, **changed}).encode()
    return hashlib.sha256(content).hexdigest(), content


def test_what_was_begun_is_not_worked_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    name, content = key_file()
    kdf.begin("password", name, content)
    asked: list[object] = []

    def scrypt(*question: object) -> bytes:
        asked.append(question)
        return b"now"

    monkeypatch.setattr(kdf, "_scrypt", scrypt)
    salt = kdf.parse_key(name, content)["salt"]
    early = kdf.derive("password", *PARAMETERS, salt)
    assert early == hashlib.scrypt(b"password", salt=salt, n=16, r=8, p=2, dklen=64)
    assert asked == []
    assert kdf.derive("password", *PARAMETERS, salt) == b"now"
    kdf.begin("password", name, content)
    assert kdf.derive("another", *PARAMETERS, salt) == b"now"


@pytest.mark.parametrize(
    "changed", [{"N": 1 << 30}, {"N": 3}, {"p": 1 << 20}, {"salt": "?"}, {"kdf": "other"}]
)
def test_a_planted_key_file_costs_nothing(changed: dict[str, object]) -> None:
    before = dict(kdf._begun)
    kdf.begin("password", *key_file(**changed))
    kdf.begin("password", "00" * 32, key_file()[1])  # a content that does not hash to its name
    assert kdf._begun == before
