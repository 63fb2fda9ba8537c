"""Scores against the segmentations that nnU-Net wrote with them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from nnunet_scores import Placed, affine_of, describe, in_slabs, probabilities, write_case

from twintrack.volumes import Volume, agreement, read_score
from twintrack.volumes.axis_order import AS_IT_IS
from twintrack.volumes.channels import merge_rule
from twintrack.volumes.grid import Placement
from twintrack.volumes.nnunet_files import READERS
from twintrack.volumes.reading import slices_of
from twintrack.volumes.slabs import VolumeSlabs

SHAPE = (14, 12, 10)


@pytest.fixture
def placed(tmp_path):
    return Placed(tmp_path)


@pytest.mark.parametrize("codes", ["LPS", "LPI"])
@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("NibabelIOWithReorient", "SimpleITKIO"),
        ("SimpleITKIOWithReorient", None),
        ("SimpleITKIO", "NibabelIOWithReorient"),
    ],
)
def test_wrong_reader_is_refused(placed, written, said, codes, monkeypatch):
    path, *_ = placed(written, said, codes)
    monkeypatch.setattr("twintrack.volumes.agreement._SAMPLE", 50)  # of 100 voxels or so
    file, ras = ", ".join(codes), "R, A, S"
    taken, fits = (file, ras) if said != "NibabelIOWithReorient" else (ras, file)
    message = rf"a\.npz: its axes \(x, y, z\) were taken to point to {taken} .*to {fits} it would"
    with pytest.raises(ValueError, match=message):
        read_score(path)
    told = set()
    for planes in (1, 4, 100):
        with pytest.raises(ValueError, match=message) as refused:
            in_slabs(path, planes=planes)
        told.add(str(refused.value))
    assert len(told) == 1  # the sample does not depend on how thick the slabs are


def test_any_other_order_is_refused_too(tmp_path):
    # Of a reader of somebody's own, said to be a known one.
    shape = (9, 9, 9)
    found, affine = probabilities(shape), affine_of("RAS")
    describe(tmp_path, "SimpleITKIO")
    refused = 0
    for axes in itertools.permutations((1, 2, 3)):
        for flips in itertools.product((1, -1), repeat=3):
            other = found.transpose(0, *axes)[:, :: flips[0], :: flips[1], :: flips[2]]
            labels = found.argmax(0)
            path = write_case(tmp_path, "a", other, affine, "SimpleITKIO", segmentation=labels)
            if axes == (1, 2, 3) and flips == (1, 1, 1):
                assert read_score(path).notes == ()
                continue
            try:
                (told,) = read_score(path).notes  # too alike to be sure, but not silent
            except ValueError as error:
                told = str(error)
                refused += 1
            assert "contradicts" in told or "were taken to point to R, A, S" in told
    assert refused >= 46


def test_symmetric_tumours_and_empty_ones_say_nothing(placed):
    found = probabilities(SHAPE)
    symmetric = (found + found[:, ::-1]) / 2
    symmetric = (symmetric + symmetric[:, :, ::-1]) / 2
    path, *_ = placed("NibabelIOWithReorient", "SimpleITKIO", found=symmetric)
    assert read_score(path).notes == ()
    empty = found.copy()
    empty[2] += empty[1]
    empty[1] = 0
    path, *_ = placed("NibabelIOWithReorient", "SimpleITKIO", found=empty)
    assert read_score(path).notes == ()


@pytest.mark.parametrize(("codes", "shape"), [("LPS", SHAPE), ("PIR", (9, 9, 9))])
def test_of_several_orders_that_fit_the_one_of_a_reader_is_named(placed, codes, shape):
    found = probabilities(shape)
    for axis in range(1, 4):
        alike = (found + np.flip(found, axis)) / 2  # any order could turn this axis over too
        path, *_ = placed("NibabelIOWithReorient", "SimpleITKIO", codes, found=alike)
        with pytest.raises(ValueError, match=r"pointing to R, A, S it would be 0%"):
            read_score(path)
        path, *_ = placed("SimpleITKIO", "NibabelIOWithReorient", codes, found=alike)
        with pytest.raises(ValueError, match=rf"pointing to {', '.join(codes)} it would be 0%"):
            read_score(path)


def test_a_few_voxels_are_no_reason_to_doubt_the_order(placed):
    found = probabilities(SHAPE)
    found[1] *= 0.1
    found[0] = 1 - found[1] - found[2]
    few = found.copy()
    few[:, 2, 3, 1:8] = np.array([0.1, 0.8, 0.1]).reshape(3, 1)
    elsewhere = few[:, ::-1, ::-1].argmax(0)
    path, *_ = placed("SimpleITKIO", found=few, segmentation=elsewhere)
    assert " in 14 voxels" in noted(path)[0]


def test_a_sample_is_the_same_of_any_slabs():
    labels = np.random.default_rng(0).integers(0, 3, (9, 8, 7))
    tumour = np.argwhere(labels.T == 1)[:, ::-1]
    for planes in (1, 2, 3, 7):
        slabs = [labels[..., k : k + planes] for k in range(0, 7, planes)]
        found = agreement._sample(slabs, (1,), 20 * 4096 - 1)
        np.testing.assert_array_equal(found, tumour[::20])


def noted(path, tumour=(1,)):
    notes = list(read_score(path, tumour).notes)
    assert in_slabs(path, tumour)[1].notes == notes
    assert in_slabs(path, tumour, planes=100)[1].notes == notes
    return notes


@pytest.mark.parametrize("reader", READERS)
def test_a_changed_segmentation_is_noted_with_its_voxels(placed, reader):
    found = probabilities(SHAPE)
    labels = found.argmax(0)
    certain = np.argwhere(found[1] > 0.6)[:7]
    impossible = np.argwhere(found[1] < 0.2)[:5]
    labels[tuple(certain.T)] = 0  # as keeping the largest component does
    labels[tuple(impossible.T)] = 1
    path, *_ = placed(reader, codes="LPI", found=found, segmentation=labels)
    (note,) = noted(path)
    assert note.startswith("the segmentation a.nii.gz contradicts the class probabilities in 12 ")


def test_a_segmentation_of_another_prediction_is_noted_not_refused(placed):
    found = probabilities(SHAPE)
    elsewhere = np.zeros(SHAPE, np.uint8)
    elsewhere[10:13, 8:11, 1:4] = 1  # where no order of axes puts the score's tumour
    corner = np.zeros(SHAPE, np.uint8)
    corner[:2, :2, :2] = 1
    nothing = np.zeros(SHAPE, np.uint8)
    for labels in (elsewhere, corner, nothing):
        path, *_ = placed("SimpleITKIO", found=found, segmentation=labels)
        (note,) = noted(path)
        missing = np.count_nonzero((labels == 1) & (found[1] < 1 / 3))
        surplus = np.count_nonzero((labels != 1) & (found[1] > 0.501))
        assert f" in {missing + surplus:,} voxels" in note


def test_what_may_be_true_of_merged_classes_is_no_contradiction(placed):
    # 0.3 + 0.3 is above 1/2, but the highest class is another; 1/3 is the least of the highest.
    found = np.zeros((4, *SHAPE), np.float32)
    found[:, ...] = np.array([0.36, 0.3, 0.3, 0.04]).reshape(4, 1, 1, 1)
    found[:, 3:6, 3:6, 3:6] = np.array([0.24, 0.26, 0.25, 0.25]).reshape(4, 1, 1, 1)
    path, *_ = placed("SimpleITKIO", found=found)
    for tumour in ((1, 2), (2, 1, 3), (1,), (0,)):
        assert noted(path, tumour) == []


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rounding_of_equal_probabilities_is_no_contradiction(dtype):
    # All alike, the first is taken for the highest; the others' sum is rounded up for some numbers.
    labels = np.zeros((1, 1, 1), np.uint8)
    for classes in range(2, 40):
        each = np.full((1, 1, 1), 1 / classes, dtype)
        for merged in ((0,), tuple(range(1, classes)), tuple(range(classes))):
            found = agreement.Agreement(agreement.expectation(None, classes, merged))
            add_up = merge_rule(Path(), merged[:1])
            found.add(add_up(each.copy() for _ in merged), labels)
            assert (found.missing, found.surplus) == (0, 0), (classes, merged)


def test_labels_of_regions(tmp_path):
    # Sigmoids of their own; nnU-Net labels the last region above 1/2.
    rng = np.random.default_rng(3)
    regions = rng.random((3, *SHAPE)).astype(np.float32)
    labels = np.zeros(SHAPE, np.uint8)
    order = [2, 1, 3]
    for region, label in zip(regions, order, strict=True):
        labels[region > 0.5] = label
    path = write_case(tmp_path, "a", regions, affine_of("LPS"), "SimpleITKIO", labels)
    told = {"background": 0, "whole": [1, 2, 3], "core": [1, 3], "spot": 3}
    describe(tmp_path, labels=told, regions_class_order=order)
    for tumour in ((0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)):
        assert noted(path, tumour) == []
    labels[np.unravel_index(regions[2].argmax(), SHAPE)] = 1  # it can be nothing but 3
    write_case(tmp_path, "a", regions, affine_of("LPS"), "SimpleITKIO", labels)
    assert " in 1 voxel" in noted(path, (2,))[0]
    labels[np.unravel_index(regions[1].argmin(), SHAPE)] = 1
    write_case(tmp_path, "a", regions, affine_of("LPS"), "SimpleITKIO", labels)
    assert " in 1 voxel" in noted(path, (1,))[0]
    for unknown in (None, [2, 1], [2, 1, 10**400]):  # nothing tells the labels of regions
        describe(tmp_path, labels=told, regions_class_order=unknown)
        assert noted(path, (2,)) == []


def test_wrong_order_of_regions_is_refused(tmp_path):
    tumour = probabilities(SHAPE)[1]
    regions = np.stack([np.sqrt(tumour), tumour])
    labels = np.where(regions[1] > 0.5, 2, np.where(regions[0] > 0.5, 1, 0))
    affine = affine_of("LPS")
    told = {"background": 0, "whole": [1, 2], "core": 2}
    describe(tmp_path, labels=told, regions_class_order=[1, 2])
    path = write_case(tmp_path, "a", regions, affine, "NibabelIOWithReorient", labels)
    for merged in ((0,), (1,), (0, 1)):
        with pytest.raises(ValueError, match="were taken to point to L, P, S"):
            read_score(path, merged)
    describe(tmp_path, "NibabelIOWithReorient", labels=told, regions_class_order=[1, 2])
    for merged in ((0,), (1,), (0, 1)):
        assert noted(path, merged) == []


def test_a_pasted_crop_keeps_its_notes():
    whole = Volume(np.zeros((4, 4, 4), np.float32))
    part = Volume(np.ones((2, 2, 2), np.float32), notes=("told",))
    placed = VolumeSlabs(part, slices_of(part.array), ["told"], lambda: part).placed(
        Placement(AS_IT_IS, (1, 1, 1), (2, 2, 2)), (0, 0, 0), whole
    )
    assert placed.whole().notes == ("told",)
    assert placed.notes == ["told"]
