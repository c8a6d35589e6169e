"""The manual: each of its commands is run, its settings are the code's, both languages say the same."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from connecthub import cli
from tests import cluster
from tests.benchmarks.page import in_chinese
from tests.installation import Site
from tests.manual_settings import PAGES, ROOT, page

pytest_plugins = ["tests.installation"]

DOCS = ROOT / "docs"
CHINESE = ".zh-CN.md"
MANUAL = sorted(file for file in DOCS.glob("*.md") if not file.name.endswith(CHINESE))
ENGLISH = [ROOT / "README.md", *MANUAL]
# What cannot be run here, and where it is tried instead.
NOT_RUN = {
    "connecthub dev": "goes on until it is ended: tests/test_dev.py",
    'connecthub job run nightly-sync --wait || mail -s "nightly-sync failed" ops@example.com < /dev/null': (
        "waits for a hub: tests/test_daily_work.py"
    ),
}
SHOWN, WAITS = "18431", "18432"  # a run to be looked at and retried, and one that waits to be cancelled
# Quotations of PostgreSQL or the system, all of it or a value in it, and those put together from two texts.
NOT_OURS = {
    "too many connections", "<data>/spool",
    "cannot be written: No space left on device", "cannot be changed: Read-only file system",
    "RemoteError: ... no answer in time", "the process ... was killed with signal 9",
    "still needed: key ... by ... Jobs",
}  # fmt: skip
VALUE = "\0"  # what stands for a value in a text of the code
SHELL = (">", "||", "|", "<")


def twin(file: Path) -> Path:
    return file.with_name(file.name.removesuffix(".md") + CHINESE)


def shown(text: str) -> list[str]:
    """Lines `connecthub ...` of the sh blocks and of what is indented by four."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.S | re.M)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^ {4}(connecthub .*)", text, re.M)
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("connecthub ")]


def blocks(text: str) -> list[str]:
    """What a person copies, without its comments."""
    found = re.findall(r"^ *```(?:sh|cron|toml|yaml|nginx)\n(.*?)^ *```", text, re.S | re.M)
    return [re.sub(r" +#.*", "", block) for block in found]


def inline(text: str) -> list[str]:
    """`connecthub ...` in the sentences and tables."""
    return re.findall(r"`(connecthub [^`]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M))


def words_of(line: str) -> list[str]:
    """The arguments of `connecthub`, without what is the shell's."""
    words = shlex.split(line)[1:]
    ends = [number for number, word in enumerate(words) if word in SHELL]
    return words[: ends[0]] if ends else words


def command_of(line: str) -> tuple[click.Command, list[str]]:
    """The command that `line` calls, and its own arguments. Fails where there is no such command."""
    words = words_of(line)
    found: click.Command = cli._group
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        assert words[0] in found.commands, f"{line}: there is no command {words[0]}"
        found = found.commands[words.pop(0)]
    return found, words


def is_whole(line: str) -> bool:
    """Whether all its arguments are there; a sentence may also just name a command."""
    found, words = command_of(line)
    if isinstance(found, click.Group):
        return False
    try:
        found.make_context("connecthub", list(words))
    except click.MissingParameter:
        return False
    except click.BadParameter:  # a placeholder, or a file that is not there yet
        return True
    return True


def lines_of(file: Path) -> list[str]:
    text = file.read_text("utf-8")
    found = shown(text) + [line for line in inline(text) if is_whole(line)]
    return list(dict.fromkeys(found))


def filled_in(line: str, folder: Path) -> tuple[list[str], Path | None, Path | None]:
    """The arguments, with things that are there for what the page names; the files of stdin and stdout."""
    words = words_of(line.replace("/backups/", f"{folder}/"))
    spares_greet = words[:2] in (["job", "clear"], ["job", "delete"])
    given = {
        "ID": "other" if spares_greet else "greet",
        "RUN": SHOWN,
        SHOWN: WAITS if words[:2] == ["run", "cancel"] else SHOWN,
    }
    words = [given.get(word.removesuffix("..."), word) for word in words]
    words = [WAITS if words[:2] == ["run", "cancel"] and word == SHOWN else word for word in words]
    source, target = (re.search(rf" {sign} (\S+)$", line) for sign in "<>")
    return words, folder / source[1] if source else None, folder / target[1] if target else None


@pytest.fixture
def prepared(site: Site) -> Site:
    """An installation with Jobs, a run that was lost, and one that waits."""
    site.leave_canary()
    assert site.command("user", "add", "admin", "--role", "admin").returncode == 0
    site.job("other", name="Other")
    site.job("greet", name="Greet")
    columns = "(id, job_id, revision_id, trigger, status, idempotency_key, finished_at)"
    for run_id, status, ended in ((SHOWN, "LOST", "now()"), (WAITS, "QUEUED", "NULL")):
        site.sql(
            f"INSERT INTO job_logs {columns} OVERRIDING SYSTEM VALUE SELECT {run_id}, id, revision_id,"
            f" 'manual', '{status}', '{run_id}', {ended} FROM jobs WHERE id = 'greet'"
        )
    (site.folder / "secrets.json").write_text(json.dumps({"token": "made-up-token"}))
    site.environ |= {"CONNECTHUB_PLUGINS__PACKAGES": '["extensions", "checkjobs"]'}
    return site


@pytest.fixture
def wrapped(prepared: Site) -> list[Path]:
    """The two commands that install.md makes, for this installation and for the user that runs the tests."""
    folder = prepared.folder
    program = folder / ".venv" / "bin" / "connecthub"
    settings = f'[database]\nurl = {json.dumps(prepared.dsn)}\n[plugins]\npackages = ["checkjobs"]\n'
    (folder / "config.toml").write_text(settings)
    python = f"PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)}"
    texts = [f'#!/bin/sh\nexec env {python} -m connecthub "$@"\n', *wrappers(DOCS / "install.md")]
    commands = [program, folder / "as-its-user", folder / "as-root"]
    places = {
        "/usr/sbin/runuser -u connecthub -- ": "",
        "/opt/connecthub": str(folder),
        "/etc/connecthub": str(folder),
        "/var/lib/connecthub": str(prepared.data),
    }
    program.parent.mkdir(parents=True)
    for command, text in zip(commands, texts, strict=True):
        for there, here in places.items():
            text = text.replace(there, here)
        command.write_text(text)
        command.chmod(0o755)
    return commands[1:]


def wrappers(page: Path) -> list[str]:
    """What the page puts into /usr/local/bin/connecthub."""
    return re.findall(r"```sh\n(#!/bin/sh\n.*?)```", page.read_text("utf-8"), re.S)


@pytest.fixture
def empty(server: str, site: Site) -> Iterator[str]:
    """The URL of an empty database."""
    name = "empty_" + site.dsn.partition("test_")[2][:16]
    yield cluster.create_database(server, name)
    cluster.drop_database(server, name)


@pytest.mark.parametrize("file", [file for file in ENGLISH if lines_of(file)], ids=lambda file: file.stem)
def test_each_command_does_what_the_page_says(prepared: Site, empty: str, file: Path) -> None:
    for line in lines_of(file):
        if line in NOT_RUN:
            continue
        words, source, target = filled_in(line, prepared.folder)
        into_empty = words[0] == "restore" and "--replace" not in words
        answer = "other\n" if words[:2] in (["job", "clear"], ["job", "delete"]) else "y\n"
        if source is not None:
            answer = source.read_text()
        environ = {"CONNECTHUB_DATABASE__URL": empty} if into_empty else {}
        if words[0] == "run-once":
            done = prepared.process(*words)
        else:
            done = prepared.command(*words, stdin=answer, **environ)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        if target is not None:
            target.write_text(done.stdout)


def test_the_line_for_cron_makes_a_backup_as_cron_runs_it(prepared: Site, wrapped: list[Path]) -> None:
    pages = [DOCS / "back-up-and-restore.md", DOCS / f"back-up-and-restore{CHINESE}"]
    (line,), chinese = (re.findall(r"```cron\n(.*)\n```", page.read_text("utf-8")) for page in pages)
    assert [line] == chinese
    found = re.fullmatch(r"(?:[\d*]+ ){5}root (/usr/local/bin/connecthub .*)", line)
    assert found, "as cron reads it: a schedule, a user and a program, which it would not find on its PATH"
    command, *standard_input = re.split(r"(?<!\\)%", found[1])
    assert not standard_input
    backups = prepared.folder / "backups"
    backups.mkdir()
    command = command.replace(r"\%", "%").replace("/usr/local/bin/connecthub", str(wrapped[0]))
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace("/backups/", f"{backups}/")],
        env={"PATH": "/usr/bin:/bin"}, cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, ""), "or it sends a mail each night"
    (made,) = backups.iterdir()
    assert re.fullmatch(r"connecthub-\d{4}-\d\d-\d\d\.zip", made.name)


def test_a_key_file_of_roots_is_read_by_the_command_that_is_made_for_it(
    prepared: Site, wrapped: list[Path]
) -> None:
    assert wrappers(DOCS / "install.md") == wrappers(DOCS / f"install{CHINESE}")
    (prepared.data / "fernet.key").rename(prepared.folder / "fernet.key")  # as into /etc/connecthub

    def said(command: Path, *words: str) -> tuple[int, str]:
        done = subprocess.run([command, *words], cwd="/", capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    as_its_user, as_root = wrapped
    assert re.search("(?m)^fault +key: ", said(as_its_user, "check")[1])
    jobs = prepared.folder / "jobs.toml"
    jobs.write_text("[jobs]")
    with_key = ("backup", "--with-key", str(prepared.folder / "b.zip"))
    for words in (("key", "rotate"), ("job", "import", str(jobs)), with_key):
        assert said(as_its_user, *words)[0] == 2
        status, text = said(as_root, *words)
        assert status == 0, text
    assert re.search("(?m)^ok +key: ", said(as_root, "check")[1])


@pytest.mark.parametrize("file", ENGLISH, ids=lambda file: file.stem)
def test_both_languages_name_the_same_commands(file: Path) -> None:
    english, chinese = file.read_text("utf-8"), twin(file).read_text("utf-8")
    for find in (shown, inline, blocks):
        assert sorted(find(english)) == sorted(find(chinese))
    for line in shown(english) + inline(english):
        command_of(line)


def test_what_is_not_run_is_still_in_the_manual() -> None:
    assert not set(NOT_RUN) - {line for file in ENGLISH for line in lines_of(file)}


def said_in(file: Path) -> Iterator[str]:
    """Texts of a module, without those that only its readers see, and the names of its classes."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.JoinedStr(values=parts):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in parts)
            case ast.ClassDef(name=name):
                yield name
            case ast.Expr(value=ast.Constant() as documentation):
                documentation.value = ""


@pytest.fixture(scope="module")
def said() -> list[str]:
    """Every text of the program that a person may see."""
    texts = [text for file in (ROOT / "connecthub").rglob("*.py") for text in said_in(file)]
    pages = (file.read_text("utf-8") for file in (ROOT / "connecthub").rglob("*.html"))
    texts += [re.sub(r"\{#.*?#\}", "", page, flags=re.S) for page in pages]
    return [re.sub(r"\s+", " ", re.sub(r"%[sdr]|\{\w+\}", VALUE, text)) for text in texts]


@pytest.mark.parametrize("name", ["mend", "back-up-and-restore", "rotate-keys"])
def test_what_is_quoted_to_mend_is_said_somewhere(said: list[str], name: str) -> None:
    """Each in one text; a value is written as dots, or as N."""
    quoted = set()
    for file in (DOCS / f"{name}.md", DOCS / f"{name}{CHINESE}"):
        symptoms = re.findall(r"^\| (.*?) \|", file.read_text("utf-8"), re.M)
        quoted |= {span for symptom in symptoms for span in re.findall(r"`([^`]+)`", symptom)}
    assert len(quoted) >= (20 if name == "mend" else 5)
    for quotation in quoted - NOT_OURS:
        pieces = [piece.strip().rstrip(":") for piece in quotation.split("...")]
        pattern = f".*{VALUE}.*".join(re.escape(piece) for piece in pieces if piece)
        pattern = re.sub(r"\b[NM]\b", VALUE, pattern)
        assert any(re.search(pattern, text) for text in said), quotation


def test_the_page_of_settings_is_the_codes() -> None:
    for language, file in PAGES.items():
        assert file.read_text("utf-8") == page(language), "write it: python -m tests.manual_settings"


def places(page: Path) -> list[str]:
    """The titles in it, as a link names them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def test_each_page_is_in_the_index_and_each_link_leads_somewhere() -> None:
    for index in (DOCS / "README.md", DOCS / f"README{CHINESE}"):
        linked = set(re.findall(r"\]\((\S+?)\)", index.read_text("utf-8")))
        here = [file for file in MANUAL if file.name != "README.md"]
        wanted = {(twin(file) if index.name.endswith(CHINESE) else file).name for file in here}
        assert not wanted - linked, index
    for file in [*ENGLISH, *map(twin, ENGLISH)]:
        for link, _, place in re.findall(r"\]\(([^)#\s]+)(#([^)\s]*))?\)", file.read_text("utf-8")):
            if "://" not in link:
                assert (file.parent / link).exists(), f"{file.name}: {link}"
                assert not place or place in places(file.parent / link), f"{file.name}: {link}#{place}"
    for readme in (ROOT / "README.md", ROOT / f"README{CHINESE}"):
        assert "](docs/README" in readme.read_text("utf-8")


OLD_PLUGIN = """
from app.integrations.seeyon import SeeyonClient
from app.jobs.base import BaseJob

class OldJob(BaseJob):
    async def run(self, params: dict, secrets: dict):
        return {"client": SeeyonClient.__name__, "n": params["n"]}
"""


@pytest.mark.parametrize("page", ["upgrade.md", f"upgrade{CHINESE}"])
def test_plugins_of_the_system_before_need_only_their_imports_changed(site: Site, page: str) -> None:
    package = site.folder / "extensions"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "old.py").write_text(OLD_PLUGIN)
    (site.folder / "params.json").write_text('{"n": 3}')
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", (DOCS / page).read_text("utf-8"), re.S | re.M)
    (mend,) = [block for block in blocks if "sed" in block]
    subprocess.run(["sh", "-ec", mend], cwd=site.folder, check=True)
    site.environ |= {"CONNECTHUB_PLUGINS__PACKAGES": '["extensions"]'}
    done = site.process("run-once", "extensions.old:OldJob", "--params", "params.json")
    assert done.returncode == 0 and json.loads(done.stdout) == {"client": "SeeyonClient", "n": 3}


def test_both_tables_of_what_was_measured_say_the_same() -> None:
    english, chinese = (measured(DOCS / name) for name in ("performance.md", "performance.zh-CN.md"))
    assert len(english) > 30
    assert [(row, in_chinese(what), *figures) for row, what, *figures in english] == chinese


def measured(file: Path) -> list[tuple[str, ...]]:
    """Row, measure, bound and figure of each line of the table."""
    lines = re.findall(r"^\| (\d+) \| (.*?) \| (.*?) \| (.*?) \|", file.read_text("utf-8"), re.M)
    return [(row, what, " ".join(goal.split()[-2:]), figure) for row, what, goal, figure in lines]
