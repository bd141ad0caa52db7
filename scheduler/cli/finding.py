"""Names that a command was given, looked up: each of them, or an error that names the nearest."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from proxy_worker.contract.errors import NotFoundError
from scheduler.state.errors import NoSuchJobError, NoSuchRepositoryError, NoSuchRestoreError, NoSuchVcenterError
from scheduler.state.models import Job, Repository, Restore, Vcenter


class NoSuchProxyError(NotFoundError):
    """No proxy of that name is declared or has registered."""


def find_job(session: Session, name: str) -> Job:
    """The job of that name; raises `NoSuchJobError`."""
    job = session.get(Job, name)
    if job is None:
        raise NoSuchJobError(
            f"job {name!r}",
            why="no job has that name",
            remedy=remedy(name, session.scalars(select(Job.name)).all(), "`scheduler job list` shows them."),
        )
    return job


def find_repository(session: Session, name: str) -> Repository:
    """The repository of that name; raises `NoSuchRepositoryError`."""
    repository = session.get(Repository, name)
    if repository is None:
        raise NoSuchRepositoryError(
            f"repository {name!r}",
            why="no repository has that name",
            remedy=remedy(
                name, session.scalars(select(Repository.name)).all(), "`scheduler repository list` shows them."
            ),
        )
    return repository


def find_vcenter(session: Session, name: str) -> Vcenter:
    """The vCenter of that name; raises `NoSuchVcenterError`."""
    vcenter = session.get(Vcenter, name)
    if vcenter is None:
        raise NoSuchVcenterError(
            f"vCenter {name!r}",
            why="no vCenter has that name",
            remedy=remedy(
                name, session.scalars(select(Vcenter.name)).all(), "`scheduler vcenter list` shows them."
            ),
        )
    return vcenter


def find_restore(session: Session, restore_id: str) -> Restore:
    """The restore of that id, or the only one whose id starts so; raises `NoSuchRestoreError`."""
    starting_so = select(Restore).where(Restore.id.startswith(restore_id, autoescape=True)).limit(2)
    found = session.scalars(starting_so).all()
    exact = [restore for restore in found if restore.id == restore_id] or list(found)
    if len(exact) != 1:
        why = "several restores start so" if exact else "no restore has that id"
        raise NoSuchRestoreError(f"restore {restore_id!r}", why=why, remedy="`scheduler restore list` shows them.")
    return exact[0]


def no_such_proxy(name: str, known: Collection[str]) -> NoSuchProxyError:
    """The error for a proxy that is neither declared nor registered."""
    return NoSuchProxyError(
        f"proxy {name!r}",
        why="no proxy of that name is declared or has registered",
        remedy=remedy(name, known, "`scheduler proxy list` shows them."),
    )


def remedy(name: str, known: Collection[str], otherwise: str) -> str:
    """Suggest the nearest of `known`, or else say `otherwise`."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {nearest[0]!r}?" if nearest else otherwise
