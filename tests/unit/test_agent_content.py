from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.content import Content
from edgebed.errors import WorkFailed
from workloads.arrivals import PlannedTask, content_rng
from workloads.base import Task, clip_bytes, pack_clip
from workloads.testing import InstantWorkload


def planned(count: int, frames: int = 3) -> list[PlannedTask]:
    return [PlannedTask(index, f"instant/1/pi-1/{index}", 0.1 * index, frames, 1.0, 0) for index in range(count)]


class CountingWorkload(InstantWorkload):
    """Counts what it renders."""

    def __init__(self) -> None:
        super().__init__(frame_bytes=100)
        self.rendered: list[str] = []

    def generate(self, rng, content_id, frames) -> Task:  # type: ignore[no-untyped-def]
        self.rendered.append(content_id)
        return super().generate(rng, content_id, frames)


@pytest.fixture
def content(tmp_path: Path) -> Iterator[Content]:
    made = Content(tmp_path)
    yield made
    made.close()


def test_payloads_are_what_packing_would_give(content: Content) -> None:
    workload = InstantWorkload(frame_bytes=100)
    clips, rendered = content.prepare(workload, "source", 1, "pi-1", planned(4))
    assert rendered == 4
    for index, clip in clips.items():
        made = workload.generate(content_rng(1, "pi-1", index), f"instant/1/pi-1/{index}", 3)
        assert clip.labels == made.labels
        assert clip.payload_bytes == made.payload_bytes
        for first, count in [(0, 3), (0, 1), (1, 2), (2, 1)]:
            payload = content.read(clip, first, count)
            assert payload == pack_clip(made.frames[first : first + count])
            assert clip.part_bytes(first, count) == len(payload) == clip_bytes([100] * count)


def test_what_is_there_is_not_rendered_again(content: Content) -> None:
    workload = CountingWorkload()
    first, _ = content.prepare(workload, "source", 1, "pi-1", planned(3))
    again, rendered = content.prepare(workload, "source", 1, "pi-1", planned(4))
    assert rendered == 1
    assert workload.rendered == [task.content_id for task in planned(4)]
    assert all(again[index] == first[index] for index in first)
    _, rendered = content.prepare(workload, "other options", 1, "pi-1", planned(4))
    assert rendered == 4
    _, rendered = content.prepare(workload, "source", 1, "pi-1", planned(4, frames=2))
    assert rendered == 4


def test_a_spool_that_has_grown_too_large_is_begun_anew(tmp_path: Path) -> None:
    content = Content(tmp_path, limit_bytes=1000)
    workload = InstantWorkload(frame_bytes=100)
    content.prepare(workload, "a", 1, "pi-1", planned(4))
    clips, rendered = content.prepare(workload, "b", 1, "pi-1", planned(1))
    assert rendered == 1
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 300
    assert content.read(clips[0], 0, 3)
    assert content.prepare(workload, "a", 1, "pi-1", planned(4))[1] == 4
    content.close()
    assert not list(tmp_path.iterdir())


def test_rendering_can_be_given_up(content: Content) -> None:
    workload = CountingWorkload()
    clips, _ = content.prepare(
        workload, "source", 1, "pi-1", planned(5), is_cancelled=lambda: len(workload.rendered) == 2
    )
    assert sorted(clips) == [0, 1]


def test_a_file_that_was_cut_off_is_noticed(content: Content, tmp_path: Path) -> None:
    clips, _ = content.prepare(InstantWorkload(frame_bytes=100), "source", 1, "pi-1", planned(2))
    (path,) = tmp_path.iterdir()
    with path.open("r+b") as file:
        file.truncate(350)
    assert content.read(clips[0], 0, 3)
    with pytest.raises(WorkFailed, match="cut off"):
        content.read(clips[1], 0, 3)


def test_only_its_owner_may_read_it(content: Content, tmp_path: Path) -> None:
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
