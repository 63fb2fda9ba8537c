"""Where members lie in the image."""

from __future__ import annotations

from ensemble_members import geometry_for

from twintrack.ensemble import (
    ExportGeometry,
)


def test_geometry_of_an_nnunet_case_comes_in_the_images_order():
    properties = {
        "spacing": [0.7, 5.0, 0.8],
        "shape_before_cropping": (30, 100, 110),
        "bbox_used_for_cropping": [[1, 29], [10, 90], [20, 100]],
    }
    geometry = ExportGeometry.from_nnunet(properties, (4.0, 1.0, 1.1), (1, 0, 2))
    assert geometry.shape == (100, 30, 110)
    assert geometry.box == ((10, 90), (1, 29), (20, 100))
    assert geometry.member_spacing == (1.0, 4.0, 1.1)
    assert geometry.separate_axis() == 1
    two = ExportGeometry.from_nnunet(properties, (1.0, 1.1), (1, 0, 2))
    assert two.member_spacing == (1.0, 5.0, 1.1)


def test_which_axis_is_separate():
    def axis(member_spacing, spacing, force=None):
        return geometry_for((4, 4, 4), member_spacing, spacing).separate_axis(force)

    assert axis((3.0, 1.0, 1.0), (1, 1, 1)) is None  # not above three
    assert axis((3.1, 1.0, 1.0), (1, 1, 1)) == 0
    assert axis((1, 1, 1), (1.0, 1.0, 3.1)) == 2
    assert axis((3.1, 1.0, 1.0), (1.0, 1.0, 9.0)) == 0  # the member's spacing decides
    assert axis((4.0, 4.0, 1.0), (9.0, 1.0, 1.0)) is None  # two coarse axes
    assert axis((3.1, 1.0, 1.0), (1, 1, 1), force=False) is None
    assert axis((1.1, 1.0, 1.0), (1, 1, 1), force=True) == 0
    assert axis((1, 1, 1), (1, 1, 1), force=True) is None
