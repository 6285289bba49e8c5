"""Rewriting the secrets of a legacy cluster by AKS run command: the steps, their command, and what it prints. Pure.

A rewrite is a count and then one command for each chunk of the namespaces. A namespace's chunk comes from its name, so
that one which is added meanwhile moves no other. The command is one text with two integers in it: nothing that a
cluster says is ever put into a shell. It prints counts, never names or contents, and they are believed only as a whole.

Sources: AKS docs, use-kms-etcd-encryption (reading every secret and writing it back; "the object has been modified" is
harmless), access-private-cluster (the command's pod has kubectl); MicrosoftDocs/azure-docs pull request 115257 (what a
command prints is cut at 512 kB).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Self

from shared.clusters import Cluster
from shared.keys import KeyId
from shared.reasons import Reason

COMMAND_DEADLINE = timedelta(minutes=60)
"""A command that has not ended by then is not waited for any longer."""

MOST_FAILURES = 3
"""So many failures of one step in a row end the rewrite: somebody has to look."""

TRY_AGAIN_AFTER = timedelta(minutes=10)
"""How long a step that failed rests."""

SECRETS_AT_ONCE = 500
"""About so many secrets in a command: it has to end well before its deadline."""

MOST_CHUNKS = 50


class Fault(StrEnum):
    """Why a step is not confirmed."""

    TIMED_OUT = "timed-out"
    """It did not end in time."""
    NOT_RUN = "not-run"
    """Azure could not run it, or knows nothing of it any more."""
    NOT_READABLE = "not-readable"
    """What it printed is not the one line that it prints: cut short, or something else."""
    NOT_ALL = "not-all"
    """It ended with some secrets left as they were, or with a failure."""


@dataclass(frozen=True, slots=True)
class Reencryption:
    """One step: a count of the secrets where `chunks` is 0, else the rewrite of chunk 1, 2, ... of so many.

    `version` of `key` is the one that the cluster names and that its secrets are to be written with.
    """

    key: KeyId
    version: str
    chunk: int = 0
    chunks: int = 0
    step: Literal["reencrypt"] = "reencrypt"

    @property
    def counts(self) -> bool:
        """Whether it only counts."""
        return self.chunks == 0

    def is_for(self, cluster: Cluster) -> bool:
        """Return whether the cluster still names this version, and that in effect.

        An operation of the cluster may change the version, one of a pool does not: pools come and go by themselves.
        """
        named = cluster.encryption.key
        same = named is not None and (named.key, named.version) == (self.key, self.version)
        return same and cluster.succeeded

    def view(self) -> dict[str, Any]:
        """Return what the step does, as programs and people read it."""
        what = "count" if self.counts else "rewrite"
        return {"step": what, "chunk": self.chunk, "chunks": self.chunks, "key": str(self.key), "version": self.version}


@dataclass(frozen=True, slots=True)
class Tally:
    """What a command counted: every secret that it listed is one of the other three."""

    listed: int
    rewritten: int
    conflicts: int
    failed: int

    def __str__(self) -> str:
        return (
            f"{self.listed} listed, {self.rewritten} rewritten,"
            f" {self.conflicts} changed by somebody else at every attempt, {self.failed} failed"
        )


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended. `exit_code` None: Azure could not run it. `tally` None: its output can't be read."""

    exit_code: int | None
    tally: Tally | None = None

    def fault(self, step: Reencryption) -> Fault | None:
        """Return why this does not confirm the step; None if it does."""
        if self.exit_code is None:
            return Fault.NOT_RUN
        if self.tally is None:
            return Fault.NOT_ALL if self.exit_code else Fault.NOT_READABLE
        done = self.tally.failed == 0 if step.counts else self.tally.rewritten == self.tally.listed
        return None if self.exit_code == 0 and done else Fault.NOT_ALL


def fault_of(step: Reencryption, ran: Ran | None) -> Fault:
    """Return why a step that is not confirmed is not; one that nobody knows the end of took too long."""
    return (ran.fault(step) if ran is not None else None) or Fault.TIMED_OUT


@dataclass(frozen=True, slots=True)
class Rewrite:
    """How far the rewrite for one version of one incarnation is.

    `begun_at` is when the first chunk was claimed: everything that is confirmed in the end was rewritten after it.
    `chunks` is None until the secrets were counted; `done` of them are confirmed. `failures` are those of the next step
    in a row, `said` is the last of them in words.
    """

    key: KeyId
    version: str
    resource_uid: str
    chunks: int | None = None
    done: int = 0
    begun_at: datetime | None = None
    failures: int = 0
    failed_at: datetime | None = None
    said: str | None = None

    @classmethod
    def of(cls, step: Reencryption, resource_uid: str | None) -> Self:
        """Return the rewrite that this step is the beginning of."""
        return cls(step.key, step.version, resource_uid or "-")

    @property
    def is_over(self) -> bool:
        """Whether every chunk is confirmed."""
        return self.chunks is not None and self.done >= self.chunks

    @property
    def has_failed(self) -> bool:
        """Whether it is not tried again by itself."""
        return self.failures >= MOST_FAILURES

    def counting_from(self, moment: datetime | None) -> Self:
        """Return how far it is, if only what was begun at that moment or later counts. Its failures are kept."""
        if moment is None or self.begun_at is None or self.begun_at >= moment:
            return self
        return replace(self, chunks=None, done=0, begun_at=None)

    def rests_until(self, now: datetime) -> datetime | None:
        """Return until when its next step waits after a failure; None if it may start."""
        until = self.failed_at + TRY_AGAIN_AFTER if self.failed_at is not None else now
        return until if until > now else None

    def is_for(self, cluster: Cluster) -> bool:
        """Return whether it may go on: the same incarnation, on the same version, that in effect."""
        same = self.resource_uid == (cluster.resource_uid or "-")
        return same and Reencryption(self.key, self.version).is_for(cluster)

    def after_confirming(self, step: Reencryption, tally: Tally, *, claimed_at: datetime) -> Self:
        """Take over a step that is confirmed."""
        forgotten = replace(self, failures=0, failed_at=None, said=None)
        if step.counts:
            return replace(forgotten, chunks=chunks_for(tally.listed), done=0, begun_at=None)
        return replace(forgotten, chunks=step.chunks, done=step.chunk, begun_at=self.begun_at or claimed_at)

    def after_failing(self, step: Reencryption, fault: Fault, tally: Tally | None, *, now: datetime) -> Self:
        """Take over a step that is not confirmed."""
        what = "the count" if step.counts else f"chunk {step.chunk} of {step.chunks}"
        counts = f" ({tally})" if tally is not None else ""
        return replace(self, failures=self.failures + 1, failed_at=now, said=f"{what}: {fault}{counts}")


def chunks_for(secrets: int) -> int:
    """Return in how many chunks so many secrets are rewritten: one at least."""
    return min(max(-(-secrets // SECRETS_AT_ONCE), 1), MOST_CHUNKS)


def next_step(cluster: Cluster, rewrite: Rewrite | None) -> Reencryption | None:
    """Return the step that comes next for a cluster; None for one that names no version."""
    named = cluster.encryption.key
    if named is None or named.version is None:
        return None
    if rewrite is None or rewrite.chunks is None:
        return Reencryption(named.key, named.version)
    return Reencryption(named.key, named.version, rewrite.done + 1, rewrite.chunks)


def hindrance(cluster: Cluster) -> Reason | None:
    """Return what in a cluster's document keeps a command from running on it; None if nothing does.

    Sources: docstring of ManagedClusterAPIServerAccessProfile.disable_run_command; AKS docs, access-private-cluster
    (the pod needs a node).
    """
    if cluster.run_command_disabled:
        return Reason.RUN_COMMAND_DISABLED
    return None if cluster.has_ready_pool else Reason.NO_READY_POOL


_SCRIPT = """\
exec 2>/dev/null
l=0 r=0 k=0 f=0
letters=-0123456789abcdefghijklmnopqrstuvwxyz
spaces=$(kubectl get namespaces -o name) && [ -n "$spaces" ] || exit 3
for s in $spaces; do
  s=${s#namespace/}
  t=$s h=0
  while [ -n "$t" ]; do
    c=${t%"${t#?}"}
    c=${letters%%"$c"*}
    h=$(((h * 31 + ${#c}) % 65521)) t=${t#?}
  done
  if [ "$n" -gt 0 ]; then [ "$((h % n + 1))" -eq "$i" ] || continue; fi
  if ! names=$(kubectl get secrets -n "$s" -o name); then
    left=$(kubectl get namespace "$s" -o name --ignore-not-found) && [ -z "$left" ] && continue
    l=$((l + 1)) f=$((f + 1))
    continue
  fi
  m=0
  for x in $names; do m=$((m + 1)); done
  l=$((l + m))
  if [ "$n" -eq 0 ] || [ "$m" -eq 0 ]; then continue; fi
  if out=$(kubectl get secrets -n "$s" -o json | kubectl replace -f -); then
    d=0
    for x in $out; do case $x in replaced) d=$((d + 1)) ;; esac; done
    if [ "$d" -eq "$m" ]; then r=$((r + d)); continue; fi
  fi
  for x in $names; do
    a=0 e=modified
    while [ "$e" = modified ] && [ "$a" -lt 5 ]; do
      a=$((a + 1)) e=failed
      if out=$(kubectl get "$x" -n "$s" -o json --ignore-not-found | kubectl replace -f - 2>&1); then
        e=replaced
      else
        case $out in *"object has been modified"*) e=modified; sleep 1; continue ;; esac
        left=$(kubectl get "$x" -n "$s" -o name --ignore-not-found) && [ -z "$left" ] && e=gone
      fi
    done
    case $e in
      replaced) r=$((r + 1)) ;;
      modified) k=$((k + 1)) ;;
      gone) l=$((l - 1)) ;;
      *) f=$((f + 1)) ;;
    esac
  done
done
printf 'kms-rewrite chunk=%d/%d listed=%d rewritten=%d conflicts=%d failed=%d end\\n' "$i" "$n" "$l" "$r" "$k" "$f"
[ "$k" -eq 0 ] && [ "$f" -eq 0 ]
"""
"""For any POSIX shell, with nothing but kubectl: more is not promised of the pod. A name's number is made without
another process: a process for each letter of 5,000 names would take longer than the rewrite.

A namespace is written back in one go. Where that is not all of it, its secrets follow one by one, so that one which
can't be written hides no other. What somebody else changes in between is read again, up to five times; what is gone by
then needs no rewrite, and what is new was written with the current version. What kubectl says of errors holds names, so
it goes nowhere but into comparisons.
"""

_LINE = re.compile(
    r"kms-rewrite chunk=(?P<chunk>\d{1,3})/(?P<chunks>\d{1,3}) listed=(?P<listed>\d{1,7})"
    r" rewritten=(?P<rewritten>\d{1,7}) conflicts=(?P<conflicts>\d{1,7}) failed=(?P<failed>\d{1,7}) end\n?",
    re.ASCII,
)


def command(step: Reencryption) -> str:
    """Return the shell text of a step: the same for every cluster, but for two integers."""
    return f"i={step.chunk:d} n={step.chunks:d}\n{_SCRIPT}"


def read(step: Reencryption, printed: str) -> Tally | None:
    """Read what a step's command printed; None for anything but its one line, whole and with counts that add up."""
    line = _LINE.fullmatch(printed)
    if line is None or (int(line["chunk"]), int(line["chunks"])) != (step.chunk, step.chunks):
        return None
    tally = Tally(*(int(line[name]) for name in ("listed", "rewritten", "conflicts", "failed")))
    ends = tally.rewritten + tally.conflicts + tally.failed
    return tally if step.counts or ends == tally.listed else None
