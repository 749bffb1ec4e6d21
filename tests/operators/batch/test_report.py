"""Lines in the log now and then, however many threads count."""

from __future__ import annotations

import threading

import pytest

from airflow_provider_odirouter.operators.batch import report as report_module
from airflow_provider_odirouter.operators.batch.report import Report

TEXT = "%d of %d edits are submitted."


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == report_module.__name__]


def test_a_line_comes_now_and_then_and_not_with_every_edit(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", report_module.__name__)
    clock = [0.0]
    monkeypatch.setattr("airflow_provider_odirouter.operators.batch.report.time.monotonic", lambda: clock[0])
    report = Report(TEXT, 1_000)
    told = []
    for second in range(1, 101):
        clock[0] = float(second)
        told.append(report.count())
    assert [second for second, was_told in enumerate(told, start=1) if was_told] == [30, 60, 90]
    assert lines(caplog) == [TEXT % (count, 1_000) for count in (30, 60, 90)]


def test_threads_count_together(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", report_module.__name__)
    report = Report(TEXT, 8_000)

    def count() -> None:
        for _ in range(1_000):
            report.count()

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.tell()
    assert lines(caplog) == ["8000 of 8000 edits are submitted."]
