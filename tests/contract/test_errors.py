"""An error says what failed, why, and what to do, in one line; scripts tell it by its code and exit code."""

from __future__ import annotations

from proxy_worker.contract.errors import ConfigurationError, NotFoundError, ProxyfleetError
from proxy_worker.contract.outcome import TaskFailure


class NoSuchDatastoreError(NotFoundError):
    pass


def test_the_message_has_all_parts_and_single_full_stops() -> None:
    error = ProxyfleetError("disk scsi0:0 of web01", why="it shrank.", remedy="Run the job again.")
    assert str(error) == "disk scsi0:0 of web01: it shrank. Run the job again."
    assert str(ProxyfleetError("no job 'x'")) == "no job 'x'"


def test_a_subclass_has_its_own_code_and_its_category_s_exit_code() -> None:
    assert NoSuchDatastoreError.code() == "no-such-datastore"
    assert NoSuchDatastoreError.exit_code == NotFoundError.exit_code


def test_a_failure_that_crossed_the_ledger_reads_like_the_error() -> None:
    error = ConfigurationError("fleet.toml", why="unknown key 'jobz'", remedy="Did you mean 'job'?")
    failure = TaskFailure.model_validate_json(TaskFailure.of(error).model_dump_json())
    assert str(failure) == str(error)
    assert (failure.code, failure.exit_code, failure.retryable) == ("configuration", 3, False)
