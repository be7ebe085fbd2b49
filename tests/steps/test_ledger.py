"""The scripts that make and undo changes, run by a real shell on real files."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from orchestrator.provision.ledger import (
    FAILED,
    FOREIGN,
    UNDO_FAILED,
    Change,
    Entry,
    apply_script,
    compacted,
    parse_ledger,
    undo_script,
)


def run(script: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["sh", "-c", script], input=stdin, capture_output=True, timeout=20, check=False)


def ledger(root: Path) -> tuple[Entry, ...]:
    return parse_ledger((root / "ledger.jsonl").read_text().splitlines())


def makes(path: Path, *, then: str = ":") -> Change:
    return Change(
        key=f"file:{path.name}", what=f"make {path}", command=f"echo new >{path}\n{then}", undo=f"rm -f {path}"
    )


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home of it" / ".edgebed"


@pytest.fixture(autouse=True)
def _home(root: Path) -> None:
    root.parent.mkdir()


def test_changes_are_made_in_order_and_written_down(root: Path, tmp_path: Path) -> None:
    changes = [makes(tmp_path / "one"), makes(tmp_path / "two", then=f"test -e {tmp_path}/one")]
    done = run(apply_script(str(root), changes, ()))
    assert (done.returncode, done.stderr) == (0, b"")
    assert ledger(root) == tuple(change.entry for change in changes)
    assert root.stat().st_mode & 0o777 == 0o700
    assert run(undo_script(str(root), ledger(root))).returncode == 0
    assert listing(tmp_path) == ["home of it"]


def test_each_change_is_in_the_ledger_before_it_is_made(root: Path, tmp_path: Path) -> None:
    sees = f"grep -q two '{root}/ledger.jsonl'\ncp '{root}/ledger.jsonl' {tmp_path}/seen"
    assert (
        run(apply_script(str(root), [makes(tmp_path / "one"), makes(tmp_path / "two", then=sees)], ())).returncode == 0
    )
    assert len(parse_ledger((tmp_path / "seen").read_text().splitlines())) == 2


def test_the_first_line_that_fails_ends_a_change(root: Path, tmp_path: Path) -> None:
    change = makes(tmp_path / "one", then=f"false\ntouch {tmp_path}/after")
    assert run(apply_script(str(root), [change], ())).returncode == FAILED
    assert not (tmp_path / "after").exists()


def test_a_first_deploy_that_fails_leaves_nothing(root: Path, tmp_path: Path) -> None:
    changes = [makes(tmp_path / "one"), makes(tmp_path / "two", then="echo why >&2; exit 5"), makes(tmp_path / "three")]
    done = run(apply_script(str(root), changes, ()), stdin=b"x" * 1_000_000)
    assert done.returncode == FAILED
    assert done.stderr.decode().splitlines() == ["why", f"failed: make {tmp_path}/two"]
    assert listing(tmp_path) == ["home of it"]


def test_a_later_deploy_that_fails_leaves_what_was_there_before(root: Path, tmp_path: Path) -> None:
    first = [makes(tmp_path / "one")]
    assert run(apply_script(str(root), first, ())).returncode == 0
    replaced = Change(key="file:one", what="again", command=f"echo newer >{tmp_path}/one", undo="exit 1")
    again = [replaced, makes(tmp_path / "two"), makes(tmp_path / "three", then="false")]
    assert run(apply_script(str(root), again, ledger(root))).returncode == FAILED
    assert ledger(root) == (first[0].entry,)
    assert listing(tmp_path) == ["home of it", "home of it/.edgebed", "home of it/.edgebed/ledger.jsonl", "one"]


def test_an_undo_that_fails_is_said_and_the_ledger_keeps_it(root: Path, tmp_path: Path) -> None:
    stuck = Change(key="stuck", what="stuck", command="false", undo="echo cannot >&2; false")
    done = run(apply_script(str(root), [makes(tmp_path / "one"), stuck], ()))
    assert (done.returncode, b"cannot" in done.stderr) == (UNDO_FAILED, True)
    assert [entry.key for entry in ledger(root)] == ["file:one", "stuck"]


def test_the_archive_comes_through_the_input_and_only_to_who_asks(root: Path, tmp_path: Path) -> None:
    reads = Change(key="in", what="reads", command=f"cat >{tmp_path}/nothing\ncat <&3 >{tmp_path}/all", undo=":")
    payload = bytes(range(256)) * 4000
    assert run(apply_script(str(root), [reads], ()), stdin=payload).returncode == 0
    assert ((tmp_path / "nothing").read_bytes(), (tmp_path / "all").read_bytes()) == (b"", payload)


def test_undoing_runs_backwards_each_key_once_and_may_be_repeated(root: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    entries = [Entry(key=key, what=key, undo=f"echo {key}{number} >>{log}") for number, key in enumerate("abca")]
    root.mkdir()
    (root / "ledger.jsonl").write_text("whatever")
    script = undo_script(str(root), entries)
    (root / "foreign").write_text("the user's own")
    done = run(script)
    assert (done.returncode, done.stderr.decode().strip()) == (FOREIGN, f"not edgebed's: {root}/foreign")
    (root / "foreign").unlink()
    assert run(script).returncode == 0
    assert log.read_text().split() == ["c2", "b1", "a0"] * 2
    assert not root.exists()


def test_an_undo_that_fails_stops_there(root: Path, tmp_path: Path) -> None:
    entries = [Entry(key="a", what="a", undo=f"touch {tmp_path}/a"), Entry(key="b", what="the b", undo="false\ntrue")]
    done = run(undo_script(str(root), entries))
    assert (done.returncode, done.stderr.decode().strip()) == (UNDO_FAILED, "the b")
    assert not (tmp_path / "a").exists()


def test_a_line_that_a_power_cut_has_left_half_is_no_entry() -> None:
    assert parse_ledger(['{"key":"a","what":"b","undo":"c"}', '{"key":"d","wh', ""]) == (
        Entry(key="a", what="b", undo="c"),
    )


def test_a_new_entry_does_not_join_half_a_line(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    (root / "ledger.jsonl").write_text('{"key":"half')
    seen = Change(key="b", what="b", command=f"cp '{root}/ledger.jsonl' {tmp_path}/seen", undo=":")
    assert run(apply_script(str(root), [seen], ())).returncode == 0
    assert parse_ledger((tmp_path / "seen").read_text().splitlines()) == (seen.entry,)


def test_compacting_keeps_order() -> None:
    entries = [Entry(key=key, what="", undo=str(number)) for number, key in enumerate("bab")]
    assert [(entry.key, entry.undo) for entry in compacted(entries)] == [("b", "0"), ("a", "1")]


@pytest.mark.parametrize("text", ["it's", 'a "b" $HOME `id`', "two\nlines", "%s \\n", "ä"])
def test_texts_come_back_as_they_were(root: Path, text: str) -> None:
    change = Change(key="k", what=text, command=":", undo=f": {shlex.quote(text)}")
    assert run(apply_script(str(root), [change], ())).returncode == 0
    assert ledger(root) == (change.entry,)
