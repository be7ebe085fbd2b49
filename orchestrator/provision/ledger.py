"""The ledger of a host: every change that deploying makes there, written and synced before it is made, with its undo.

``~/.edgebed/ledger.jsonl`` on the host, one `Entry` a line. A key names what is changed; the first entry of a key knows
how it was before edgebed came, so its undo is the one that counts. Undoing is harmless for a change that was never made
or is undone already: so neither a deploy nor a clean that was cut short leaves anything in doubt.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

LEDGER = "ledger.jsonl"

ARCHIVE_INPUT = 3
"""File descriptor from which a change with ``needs_archive`` reads the archive: it comes through the script's input."""

FAILED = 70
"""Exit status of a script whose change failed; what it had changed before is undone."""
UNDO_FAILED = 71
"""As `FAILED`, and undoing failed, too."""

FOREIGN = 72
"""Exit status of an undo that has done all but remove a folder with files that are not edgebed's."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A change in the ledger.

    Attributes:
        key: what is changed.
        what: the change, for people.
        undo: shell commands that bring back what was before; they may run any number of times.
    """

    key: str
    what: str
    undo: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change that a host still needs.

    Attributes:
        key, what, undo: as in its `Entry`.
        command: shell commands that make the change; they may run again after they were cut short.
        needs_archive: they read the archive of wheels from `ARCHIVE_INPUT`.
        is_undo: they undo what an earlier change of this key has done; the ledger forgets the key.
    """

    key: str
    what: str
    command: str
    undo: str
    needs_archive: bool = False
    is_undo: bool = False

    @property
    def entry(self) -> Entry:
        """As the ledger has it."""
        return Entry(key=self.key, what=self.what, undo=self.undo)


def parse_ledger(lines: Iterable[str]) -> tuple[Entry, ...]:
    """The entries of a ledger; a line that a power cut has left half is no entry, and its change was not begun."""
    entries = []
    for line in lines:
        with suppress(msgspec.MsgspecError):
            entries.append(msgspec.json.decode(line, type=Entry))
    return tuple(entries)


def compacted(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The first entry of each key: all that undoing needs."""
    first: dict[str, Entry] = {}
    for entry in entries:
        first.setdefault(entry.key, entry)
    return tuple(first.values())


def ledger_after(known: Sequence[Entry], changes: Sequence[Change]) -> tuple[Entry, ...]:
    """The ledger once changes are made."""
    entries = compacted([*known, *(change.entry for change in changes)])
    forgotten = {change.key for change in changes if change.is_undo}
    return tuple(entry for entry in entries if entry.key not in forgotten)


_PREAMBLE = """\
umask 077
export PATH="$PATH:/usr/sbin:/sbin"
: "${XDG_RUNTIME_DIR:=/run/user/$(id -u)}"
export XDG_RUNTIME_DIR
"""


def apply_script(root: str, changes: Sequence[Change], known: Sequence[Entry]) -> str:
    """A shell script that makes changes in order; the first that fails ends it.

    Before it ends for that reason, it undoes what it has changed and was not changed by an earlier deploy; what it has
    replaced stays replaced, and the next deploy goes on from there. When all is done, the ledger is left with one entry
    for each key.

    Args:
        root: the host's ``.edgebed``.
        changes: in order; the first makes ``root`` if it is not there.
        known: the ledger as it is.
    """
    known_keys = {entry.key for entry in known}
    new = [change for change in changes if change.key not in known_keys]
    parts = [_PREAMBLE, f"root={shlex.quote(root)}\nledger=$root/{LEDGER}", _APPLY, _undo_function(new, known)]
    for change in changes:
        what = shlex.quote(change.what)
        parts += [
            f"note {shlex.quote(_line(change.entry))} || fail {what}",
            _checked(change.command, f"fail {what}"),
        ]
        if change in new:
            parts.append("made=$((made + 1))")
    parts.append(f"rewrite {shlex.quote(_lines(ledger_after(known, changes)))}")
    return _wrapped("\n".join(parts))


def undo_script(root: str, entries: Sequence[Entry]) -> str:
    """A shell script that undoes a whole ledger, the last change first, and then takes ``root`` away.

    Args:
        root: the host's ``.edgebed``.
        entries: its ledger.
    """
    undone = [
        _checked(entry.undo, f"{{ echo {shlex.quote(entry.what)} >&2; exit {UNDO_FAILED}; }}")
        for entry in reversed(compacted(entries))
    ]
    return _wrapped("\n".join([_PREAMBLE, f"root={shlex.quote(root)}", *undone, _UNDO_END]))


def _undo_function(new: Sequence[Change], known: Sequence[Entry]) -> str:
    """Undo what was begun: of the new changes, the first ``made`` and the one after them that failed."""
    undone = [
        f'if [ {number} -le "$made" ]; then\n{_checked(change.undo, "undone=no")}\nfi'
        for number, change in reversed(list(enumerate(new)))
    ]
    restored = f"rewrite {shlex.quote(_lines(known))}" if known else 'rm -f "$ledger"; rmdir "$root" 2>/dev/null'
    end = f'if [ "$undone" = yes ]; then\n{restored}\nfi'
    return "\n".join(["made=0", "undo() {", "undone=yes", *undone, end, "}"])


def _checked(commands: str, otherwise: str) -> str:
    """Commands of which the first that fails is the last.

    Not in front of ``||``: there a shell takes no notice of ``set -e``, not even of one inside the parentheses.
    """
    return f"(\nset -e\n{commands}\n)\n[ $? = 0 ] || {otherwise}"


def _line(entry: Entry) -> str:
    return msgspec.json.encode(entry).decode()


def _lines(entries: Iterable[Entry]) -> str:
    return "".join(f"{_line(entry)}\n" for entry in entries)


def _wrapped(script: str) -> str:
    """A script with its input out of the way of its commands, for the one that wants it."""
    return f"main() {{\n{script}\n}}\nexec {ARCHIVE_INPUT}<&0 </dev/null\nmain\n"


# A new ledger's folder has to be there before the ledger can say so; an empty one counts as nobody's.
_APPLY = f"""\
if [ -s "$ledger" ] && [ -n "$(tail -c 1 "$ledger")" ]; then echo >>"$ledger"; fi # half a line, by a power cut
note() {{
    mkdir -p "$root" && printf '%s\\n' "$1" >>"$ledger" && {{ sync "$ledger" 2>/dev/null || sync; }}
}}
rewrite() {{
    printf '%s' "$1" >"$ledger.new" && {{ sync "$ledger.new" 2>/dev/null || sync; }} && mv "$ledger.new" "$ledger"
}}
fail() {{
    echo "failed: $1" >&2
    cat <&{ARCHIVE_INPUT} >/dev/null # who is still sending is not to find the door shut
    undo
    [ "$undone" = yes ] || exit {UNDO_FAILED}
    exit {FAILED}
}}"""

_UNDO_END = f"""\
for file in "$root"/* "$root"/.[!.]*; do
    if [ -e "$file" ] && [ "$file" != "$root/{LEDGER}" ]; then
        echo "not edgebed's: $file" >&2
        exit {FOREIGN}
    fi
done
rm -f "$root/{LEDGER}" && rmdir "$root"
"""
