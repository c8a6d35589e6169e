"""The key file, the tokens and the passwords."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import shlex
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st

from connecthub.errors import KeyFileError, SecretError
from connecthub.security import keyfile, passwords
from connecthub.security.vault import Vault

SECRETS: dict[str, Any] = {"rest_user": "oa", "密码": "p\"w'中", "deep": {"list": [1, 2.5, None, True]}}
ONE_KEY = base64.urlsafe_b64encode(bytes(range(32)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "key folder" / "fernet.key"


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path


def error_of(path: Path, may_create: bool = True) -> str:
    with pytest.raises(KeyFileError) as caught:
        Vault.open(path, may_create=may_create)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# The key file is made


def test_the_first_start_makes_a_key_that_only_its_owner_reads(path: Path) -> None:
    old = os.umask(0)
    try:
        first = Vault.open(path, may_create=True)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["fernet.key"], "no scratch file stays"
    again = Vault.open(path, may_create=False)
    assert again.decrypt(first.encrypt(SECRETS)) == SECRETS


def test_a_folder_that_is_there_keeps_its_mode(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    Vault.open(path, may_create=True)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


def test_no_key_is_made_while_the_database_holds_secrets(path: Path) -> None:
    assert "is missing, but the database holds secrets" in error_of(path, may_create=False)
    assert not path.parent.exists()


def _start(path: Path, barrier: Any, canaries: Any) -> None:
    barrier.wait()
    canaries.put(Vault.open(path, may_create=True).canary())


def test_processes_that_start_at_once_end_up_with_one_key(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, canaries = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_start, args=(path, barrier, canaries)) for _ in range(4)]
    for process in processes:
        process.start()
    made = [canaries.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert all(Vault.open(path, may_create=False).fits(canary) for canary in made)
    assert len(list(path.parent.iterdir())) == 1


def test_the_loser_of_a_race_takes_the_winners_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def slower(source: str, target: Path) -> None:
        write(path, ONE_KEY)
        link(source, target)

    monkeypatch.setattr(os, "link", slower)
    canary = Vault.open(path, may_create=True).canary()
    assert path.read_bytes() == ONE_KEY
    assert Fernet(ONE_KEY).decrypt(canary)


def test_a_folder_where_nothing_can_be_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    message = error_of(path, may_create=True)
    assert "cannot be made: Permission denied; make" in message
    assert "[security] fernet_key_path" in message


# The key file is refused


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610, 0o440, 0o444])
def test_a_key_file_that_others_can_read(path: Path, mode: int) -> None:
    write(path, ONE_KEY, mode)
    message = error_of(path)
    assert f"open to other users (mode {mode:04o}): chmod 600 {shlex.quote(str(path))}" in message
    os.system(message.split("): ")[1])
    Vault.open(path, may_create=False)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_file_that_only_its_owner_can_read(path: Path, mode: int) -> None:
    Vault.open(write(path, ONE_KEY, mode), may_create=False)


def found(mode: int, uid: int) -> os.stat_result:
    return os.stat_result((mode, 0, 0, 1, uid, 0, 44, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "owner", "user", "problem"),
    [
        (0o100600, 1000, 1000, ""),
        (0o100600, 0, 1000, ""),
        (0o100600, 0, 0, ""),
        (0o100440, 0, 1000, ""),  # systemd's LoadCredential, Kubernetes' fsGroup
        (0o100440, 0, 0, "open to other users"),
        (0o100440, 1000, 1000, "open to other users"),
        (0o100444, 0, 1000, "open to other users"),
        (0o100640, 0, 1000, "open to other users"),
        (0o100600, 1000, 1001, "belongs to another user (uid 1000): sudo chown"),
        (
            0o100600,
            1000,
            0,
            "(uid 1000): run this as that user (sudo -u '#1000'), or if root runs the hub sudo chown",
        ),
        (0o040700, 0, 0, "is no regular file"),
        (0o010600, 0, 0, "is no regular file"),
        (0o020600, 0, 0, "is no regular file"),
    ],
)
def test_owner_mode_and_kind(mode: int, owner: int, user: int, problem: str) -> None:
    message = keyfile._problem(Path("/k"), found(mode, owner), user)
    assert (problem in message) if problem else not message


def test_the_owner_of_the_open_file_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, ONE_KEY)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(path).st_uid + 1)
    if os.stat(path).st_uid == 0:
        Vault.open(path, may_create=False)  # the key of root, whom every user must trust
        monkeypatch.setattr(os, "fstat", lambda _: found(0o100600, 4711))
    message = error_of(path)
    assert f"sudo chown {os.geteuid()} {shlex.quote(str(path))}" in message


def test_a_key_file_that_may_not_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, ONE_KEY)

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert "cannot be read by this user: sudo chown" in error_of(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)  # opening it must not wait for a writer
    (tmp_path / "loose").symlink_to(tmp_path / "nowhere")
    assert "is no regular file" in error_of(tmp_path / "fifo")
    assert "is no regular file" in error_of(tmp_path)
    assert "cannot be read: No such file" in error_of(tmp_path / "loose")
    (tmp_path / "file").write_text("")
    assert "cannot be read: Not a directory" in error_of(tmp_path / "file" / "key")


def test_a_link_is_followed_and_its_target_checked(path: Path, tmp_path: Path) -> None:
    write(path, ONE_KEY)
    (tmp_path / "link").symlink_to(path)
    Vault.open(tmp_path / "link", may_create=False)
    path.chmod(0o644)
    assert "chmod 600" in error_of(tmp_path / "link")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "holds no key"),
        (b"\n  \n# only a comment\n", "holds no key"),
        (b"hunter22\n", "line 1 holds no Fernet key"),
        (ONE_KEY + b"\n" + ONE_KEY[:-2] + b"\n", "line 2 holds no Fernet key"),
        (ONE_KEY[:-1], "line 1 holds no Fernet key"),
        (ONE_KEY + ONE_KEY, "line 1 holds no Fernet key"),
        (b"\xff\xfe\x00hunter22", "line 1 holds no Fernet key"),
        (b"!!" + ONE_KEY, "line 1 holds no Fernet key"),
    ],
)
def test_what_is_no_key(path: Path, content: bytes, problem: str) -> None:
    write(path, content)
    message = error_of(path).replace(str(path), "PATH")
    assert problem in message
    assert "backup" in message
    assert "hunter22" not in message
    assert ONE_KEY.decode()[:8] not in message


def test_several_keys_the_newest_first(path: Path) -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    token = Vault.open(write(path, old), may_create=False).encrypt(SECRETS)
    both = Vault.open(
        write(path, b"\xef\xbb\xbf# new\r\n " + new + b" \r\n\r\n# old\r\n" + old), may_create=False
    )
    assert both.decrypt(token) == SECRETS
    assert both.fits(token)
    assert Fernet(new).decrypt(both.encrypt(SECRETS))
    assert repr(both) == "Vault(2 keys)"


# Tokens


@pytest.fixture(scope="module")
def box() -> Vault:
    return Vault([Fernet(ONE_KEY)])


def refusal(box: Vault, token: str) -> str:
    with pytest.raises(SecretError) as caught:
        box.decrypt(token)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.__context__ is None, "what was decrypted must not hang on the error"
    piece = token[20:40]
    assert len(piece) < 8 or piece not in message, "shorter ones may stand in any message by chance"
    return message


def test_a_token_is_json_text_in_fernet(box: Vault) -> None:
    plain = Fernet(ONE_KEY).decrypt(box.encrypt(SECRETS)).decode("utf-8")
    assert json.loads(plain) == SECRETS
    assert "密码" in plain
    assert box.decrypt(Fernet(ONE_KEY).encrypt(b'{"a": "\\u5bc6"}').decode()) == {"a": "密"}


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.characters(categories=["Cs"])))
@settings(deadline=None)
def test_what_goes_in_comes_out(data: dict[str, Any]) -> None:
    box = Vault([Fernet(ONE_KEY)])
    assert box.decrypt(box.encrypt(data)) == data


@pytest.mark.parametrize("value", [float("nan"), b"bytes", object()])
def test_what_is_no_json_is_refused(box: Vault, value: object) -> None:
    with pytest.raises(SecretError, match="what JSON cannot"):
        box.encrypt({"key": value})


@pytest.mark.parametrize(
    "dirt", ['"', "'", " ", "\r\n", "\t", "\u00a0", "\u3000", "\u200b", "\ufeff", "“", "\u2060"]
)
def test_a_token_is_cleaned_before_use(box: Vault, dirt: str) -> None:
    token = box.encrypt(SECRETS)
    dirty = dirt + dirt.join([token[:30], token[30:60], token[60:]]) + dirt
    assert box.decrypt(dirty) == SECRETS
    assert box.fits(dirty)


def test_every_cut_says_so(box: Vault) -> None:
    token = box.encrypt(SECRETS)
    assert token.endswith("=") or len(token) % 64 == 12
    for cut in range(1, len(token)):
        message = refusal(box, token[:cut])
        assert "looks truncated" in message, cut
        assert ("another key" in message) == (cut % 64 == 12 and cut > 76), (
            cut
        )  # whole blocks: it may be either
        assert "save the secrets again" in message
    assert "looks truncated" in refusal(box, token[1:])
    assert "looks truncated" not in refusal(box, "")


def test_another_key_is_called_that(box: Vault) -> None:
    token = Vault([Fernet(Fernet.generate_key())]).encrypt({"a": "some value"})
    message = refusal(box, token)
    assert "another key than the key file holds" in message
    assert "restore the key file" in message
    assert ("looks truncated" in message) == (not token.endswith("="))


@pytest.mark.parametrize("token", ["", " '' ", "{}", '{"password": "hunter22"}', "密文", "hunter22"])
def test_what_is_no_token(box: Vault, token: str) -> None:
    message = refusal(box, token)
    assert "is empty" in message or "is no Fernet token" in message
    assert "hunter22" not in message


@pytest.mark.parametrize(
    "plain", [b'["hunter22"]', b'"hunter22"', b"null", b"hunter22", b"\xff", b"", b"[" * 100_000]
)
def test_what_is_no_json_object(box: Vault, plain: bytes) -> None:
    message = refusal(box, Fernet(ONE_KEY).encrypt(plain).decode())
    assert "must be a JSON object" in message
    assert "hunter22" not in message


def test_a_canary_fits_its_own_key_alone(box: Vault) -> None:
    other = Vault([Fernet(Fernet.generate_key())])
    assert box.fits(box.canary())
    assert not other.fits(box.canary())
    assert not other.fits(box.encrypt(SECRETS))
    for broken in ("", "x", "密", box.canary()[:-4]):
        assert not box.fits(broken)


def test_nothing_shows_the_keys(box: Vault) -> None:
    for shown in (repr(box), str(box), repr(vars(box))):
        assert ONE_KEY.decode() not in shown


# Passwords


def test_a_password_fits_its_own_hash_alone() -> None:
    stored = passwords.hash_password("密码 pass\ud800")
    assert stored.startswith("$argon2id$")
    assert passwords.verify_password(stored, "密码 pass\ud800")
    assert not passwords.verify_password(stored, "密码 pass")
    assert passwords.hash_password("x") != passwords.hash_password("x")


@pytest.mark.parametrize("stored", ["", "x", "密", "$argon2id$v=19$m=65536,t=3,p=4$x$y", "$2b$12$abcdefg"])
def test_a_broken_hash_fits_nothing(stored: str) -> None:
    assert not passwords.verify_password(stored, "x")


def test_an_unknown_user_costs_as_much_as_a_known_one() -> None:
    assert not passwords._HASHER.check_needs_rehash(passwords._NOBODY), (
        "the same parameters, so the same work"
    )
    assert not passwords.verify_password(None, "")
    stored = passwords.hash_password("x")
    known, unknown = (
        min(_seconds(lambda given=given: passwords.verify_password(given, "y")) for _ in range(5))
        for given in (stored, None)
    )
    assert 0.4 < unknown / known < 2.5


def _seconds(call: Any) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def test_a_match_of_nobodys_hash_is_no_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_NOBODY", passwords.hash_password("x"))
    assert not passwords.verify_password(None, "x")


def test_made_passwords_are_long_readable_and_different() -> None:
    made = {passwords.make_password() for _ in range(200)}
    assert len(made) == 200
    assert len(passwords._ALPHABET) == len(set(passwords._ALPHABET)) == 31
    for password in made:
        groups = password.split("-")
        assert [len(group) for group in groups] == [6, 6, 6, 6]  # 31 ** 24 is more than 2 ** 118
        assert set("".join(groups)) <= set(passwords._ALPHABET)
        assert not set("01lio") & set(password)
