"""What is recorded of the images of a prediction."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("nnunetv2")

from twintrack.nnunet.record import changed_image, stamp_images

pytestmark = pytest.mark.nnunet


def test_voxels_in_another_file_than_the_image_are_stamped(tmp_path):
    image, voxels, record = (tmp_path / name for name in ("A.mha", "A.raw", "A.json"))
    image.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 1 1 3\nElementType = MET_UCHAR\n"
        "ElementDataFile = A.raw\n"
    )
    voxels.write_bytes(b"one")
    stamped = stamp_images([image])
    assert set(stamped) == {"image_0", "image_0.raw"}
    record.write_text(json.dumps(stamped))
    assert changed_image(record, [image]) is None
    voxels.write_bytes(b"two")
    assert changed_image(record, [image]) == voxels
    voxels.unlink()
    assert changed_image(record, [image]) == image
    record.write_text("[]")
    assert changed_image(record, [image]) == image
