"""The edits of a batch in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from airflow_provider_odirouter.batch.items import BatchItems
from airflow_provider_odirouter.models import BatchItem, LandedOutput, Phase

COUNT = 2000
OUTPUT = LandedOutput(path="/out/a.png", content_type="image/png", width=1, height=2, size_bytes=3, sha256="4")
SIGNED = "https://example.com/a.png?signature=abc"


def item(number: int, phase: Phase = Phase.PLANNED, source: str = "/in/a.png") -> BatchItem:
    return BatchItem(
        number=number,
        name=f"cup-{number}",
        edit={"prompt": f"Edit {number}", "images": [source]},
        sha256={source: "1"},
        fingerprint="f" * 64,
        phase=phase,
        request_id=f"mmsu_{number}" if phase is not Phase.PLANNED else None,
        outputs=(OUTPUT.model_copy(),) if phase is Phase.LANDED else (),
        metadata={"seed": number} if phase is Phase.LANDED else {},
    )


@pytest.fixture
def grown() -> Iterator[Callable[[], int]]:
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()


@pytest.mark.parametrize("source", ["/in/a.png", SIGNED])
@pytest.mark.parametrize("phase", Phase)
def test_an_edit_is_read_as_it_was_set(phase: Phase, source: str) -> None:
    items = BatchItems([item(1), item(2)])
    items[1] = item(2, phase, source)
    assert items[0] == item(1)
    # What will be submitted, or may be, keeps its URLs whole.
    assert items[1] == (
        item(2, phase, source) if phase not in {Phase.LANDED, Phase.FAILED} else shortened(phase, source)
    )
    assert b"signature" not in b"".join(items.lines)


def shortened(phase: Phase, source: str) -> BatchItem:
    return item(2, phase, source.replace("signature=abc", "***"))


def test_they_are_read_like_a_list() -> None:
    items = BatchItems(item(number, phase) for number, phase in enumerate(Phase, start=1))
    assert len(items) == len(Phase)
    assert [one.number for one in items] == [1, 2, 3, 4, 5, 6]
    assert [one.number for one in items[1:-1:2]] == [2, 4]
    assert items[-1] == list(items)[-1]
    with pytest.raises(IndexError):
        items[6]


def test_a_copy_changes_alone() -> None:
    items = BatchItems([item(1, Phase.SUBMITTED), item(2)])
    copied = BatchItems(items)
    copied[0] = item(1, Phase.LANDED)
    copied.append(item(3))
    assert list(items) == [item(1, Phase.SUBMITTED), item(2)]
    assert list(copied) == [item(1, Phase.LANDED), item(2), item(3)]


@pytest.mark.parametrize("phase", [Phase.PLANNED, Phase.LANDED, Phase.FAILED])
def test_an_edit_that_is_not_in_progress_needs_little_more_memory_than_its_line(
    phase: Phase, grown: Callable[[], int]
) -> None:
    items = BatchItems(item(number) for number in range(1, COUNT + 1))
    for number in range(1, COUNT + 1):
        items[number - 1] = item(number, Phase.SUBMITTED)
        items[number - 1] = item(number, phase)
    assert grown() < 1.3 * sum(map(len, items.lines))
