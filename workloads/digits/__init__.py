"""Workload ``digits``: handwritten digits in camera frames, recognised by a convolutional network.

The pictures show real scans. `generate` uses only the scans that the network was never trained or selected on, so the
accuracy of a run is comparable with the held-out accuracy on the model card.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgebed.errors import BadInput
from workloads.base import Demand, Payload, Result, Task, unpack_clip
from workloads.digits.manifest import FOLDER, Manifest, read_checked, read_manifest

if TYPE_CHECKING:
    import numpy as np

    from workloads.digits.recognise import Recogniser
    from workloads.digits.scans import ScanSet

__all__ = ["WORKLOAD", "DigitsWorkload"]


class DigitsWorkload:
    """Recognition of handwritten digits in JPEG frames of 640 x 480.

    Instances may live in several threads, one each; they share the network's weights.

    Args:
        folder: where scans, model and manifest are; the shipped ones by default.
    """

    name = "digits"

    def __init__(self, folder: str | Path = FOLDER) -> None:
        self._folder = Path(folder)

    @property
    def demand(self) -> Demand:
        """What a frame costs, as measured by the training script; the model card states where.

        Raises:
            BadInput: the manifest cannot be read.
        """
        cost = self.manifest.cost
        return Demand(cycles_per_frame=cost.cycles_per_frame, bytes_per_frame=cost.bytes_per_frame)

    @cached_property
    def manifest(self) -> Manifest:
        """Checksums, accuracy and cost of what is shipped.

        Raises:
            BadInput: it cannot be read.
        """
        return read_manifest(self._folder)

    def generate(self, rng: np.random.Generator, content_id: str, frames: int) -> Task:
        """Draw test scans with replacement and render each; fewer frames are a prefix of more.

        Raises:
            BadInput: ``frames`` is not positive, or the scans are not the ones that the manifest names.
        """
        # Imported here: a server that only executes has no need of the scans and textures.
        from workloads.digits.render import draw_variation, encode, render

        if frames < 1:
            raise BadInput(f"digits: a clip of {frames} frames; at least 1 is needed")
        scans = self._test_scans
        pictures, labels = [], []
        for _ in range(frames):
            index = int(rng.integers(len(scans)))
            pictures.append(encode(render(scans.images[index], draw_variation(rng))))
            labels.append(int(scans.labels[index]))
        return Task(content_id, tuple(pictures), tuple(labels))

    def load(self) -> None:
        """Load the network and recognise a blank frame.

        Raises:
            BadInput: the model is missing or is not the one that the manifest names.
        """
        _ = self._recogniser

    def execute(self, payload: Payload) -> Result:
        """Recognise the frames of a packed clip, one at a time: a batch is no faster on a CPU.

        Raises:
            ProtocolError: the payload is not a clip of grey JPEG frames of 640 x 480.
        """
        return Result(tuple(self.execute_frame(frame) for frame in unpack_clip(payload)))

    def execute_frame(self, frame: Payload) -> int:
        """The digit that one frame shows.

        Raises:
            ProtocolError: it is not a grey baseline JPEG of 640 x 480.
        """
        return self._recogniser.recognise(frame)

    @cached_property
    def _test_scans(self) -> ScanSet:
        from workloads.digits.scans import Part, read_part

        shipped = self.manifest.scans
        return read_part(read_checked(self._folder, shipped.file, shipped.sha256), Part.TEST)

    @cached_property
    def _recogniser(self) -> Recogniser:
        from workloads.digits.recognise import Recogniser, shared_session

        return Recogniser(shared_session(self._folder))


WORKLOAD = DigitsWorkload
