"""Networks on a device that is full, and logits that stay there."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("nnunetv2")
torch = pytest.importorskip("torch")

import tiny_models as tiny  # noqa: E402
from device_libraries import InterfaceArray  # noqa: E402
from tiny_images import AFFINES, ct  # noqa: E402

from twintrack.calibration.calibrator import Calibrator  # noqa: E402
from twintrack.nnunet import Pipeline  # noqa: E402
from twintrack.nnunet.image_cases import ImageCase  # noqa: E402
from twintrack.nnunet.models import DeviceMemoryError  # noqa: E402
from twintrack.nnunet.predict_job import PredictJob, predict_cohort  # noqa: E402
from twintrack.volumes import read_volume, write_volume  # noqa: E402

pytestmark = pytest.mark.nnunet

FAST: dict[str, Any] = {"device": "cpu", "mirroring": False}


def test_out_of_device_memory_falls_back_once_and_says_so(
    models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    calls: list[bool] = []
    real = nnUNetPredictor._internal_predict_sliding_window_return_logits

    def scarce(self: Any, data: Any, slicers: Any, do_on_device: bool = True) -> Any:
        calls.append(do_on_device)
        if do_on_device:
            raise torch.cuda.OutOfMemoryError("no room")
        return real(self, data, slicers, do_on_device)

    monkeypatch.setattr(nnUNetPredictor, "_internal_predict_sliding_window_return_logits", scarce)
    pipeline = Pipeline(models[:1], **FAST)
    plain = pipeline.predict(ct(), AFFINES["RAS"])
    pipeline.networks.members[0].predictor.perform_everything_on_device = True
    with pytest.warns(UserWarning, match="added up on the CPU from now on"):
        fallen = pipeline.predict(ct(), AFFINES["RAS"])
    again = pipeline.predict(ct(), AFFINES["RAS"])
    assert calls == [False, True, False, False]
    np.testing.assert_array_equal(fallen.score.array, plain.score.array)
    np.testing.assert_array_equal(again.score.array, plain.score.array)

    def hopeless(self: Any, data: Any, slicers: Any, do_on_device: bool = True) -> Any:
        raise torch.cuda.OutOfMemoryError("no room")

    monkeypatch.setattr(nnUNetPredictor, "_internal_predict_sliding_window_return_logits", hopeless)
    with pytest.raises(MemoryError, match="does not fit"):
        pipeline.predict(ct(), AFFINES["RAS"])


def images_given(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """Return what refers to the images that nnU-Net's sliding window is given from now on."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    real = nnUNetPredictor._internal_predict_sliding_window_return_logits
    given: list[weakref.ref[Any]] = []

    def record(self: Any, data: Any, slicers: Any, do_on_device: bool = True) -> Any:
        given.append(weakref.ref(data))
        return real(self, data, slicers, do_on_device)

    monkeypatch.setattr(nnUNetPredictor, "_internal_predict_sliding_window_return_logits", record)
    return given


@pytest.mark.parametrize("after", [0, 2])  # patches that still find room
def test_a_full_device_leaves_no_image_and_no_thread(
    models: list[Path], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    pipeline = Pipeline(models[:1], **FAST)
    plain = pipeline.predict(ct(), AFFINES["RAS"]).score.array
    given = images_given(monkeypatch)
    predictor = pipeline.networks.members[0].predictor
    network = predictor._internal_maybe_mirror_and_predict
    calls: list[int] = []

    def scarce(patch: Any) -> Any:
        calls.append(len(given))
        if len(given) <= 3 and calls.count(len(given)) > after:
            raise torch.cuda.OutOfMemoryError("no room")
        return network(patch)

    monkeypatch.setattr(predictor, "_internal_maybe_mirror_and_predict", scarce)
    monkeypatch.setattr(pipeline.networks, "make_room", lambda: True)
    threads = threading.enumerate()
    found = pipeline.predict(ct(), AFFINES["RAS"]).score.array
    np.testing.assert_array_equal(found, plain)
    assert [calls.count(attempt) for attempt in (1, 2, 3)] == [after + 1] * 3
    assert calls.count(4) > 4  # or nothing would have waited
    assert threading.enumerate() == threads
    gc.collect()
    assert len(given) == 4
    assert all(image() is None for image in given)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("after", [0, 2])
def test_a_patch_without_room_is_a_full_device_not_the_end_of_all_progress(
    models: list[Path], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    pipeline = Pipeline(models[:1], **FAST)
    plain = pipeline.predict(ct(), AFFINES["RAS"]).score.array
    given = images_given(monkeypatch)
    real, clones = torch.clone, []

    def scarce(tensor: Any, **keywords: Any) -> Any:
        clones.append(len(given))
        if len(given) == 1 and len(clones) > after:
            raise torch.cuda.OutOfMemoryError("no room")
        return real(tensor, **keywords)

    monkeypatch.setattr(torch, "clone", scarce)
    monkeypatch.setattr(pipeline.networks, "make_room", lambda: True)
    found = pipeline.predict(ct(), AFFINES["RAS"]).score.array
    np.testing.assert_array_equal(found, plain)
    assert clones.count(1) == after + 1
    assert len(given) == 2


def test_compiled_networks_and_the_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nnUNet_compile=1 wraps the network; its weights are then loaded elsewhere.
    folder = tiny.write_model(tmp_path / "m", folds=(0, 1))
    plain = Pipeline([folder], **FAST).predict(ct(), AFFINES["RAS"])
    pipeline = Pipeline([folder], **FAST)
    predictor = pipeline.networks.members[0].predictor
    predictor.network = torch.compile(predictor.network, backend="eager")
    threads = torch.get_num_threads()
    with torch.compiler.set_stance("force_eager"):
        compiled = pipeline.predict(ct(), AFFINES["RAS"])
    np.testing.assert_array_equal(compiled.score.array, plain.score.array)

    def fail(data: Any) -> Any:
        assert torch.get_num_threads() <= threads
        torch.set_num_threads(threads + 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(predictor, "predict_sliding_window_return_logits", fail)
    with pytest.raises(KeyboardInterrupt):
        pipeline.predict(ct(), AFFINES["RAS"])
    assert torch.get_num_threads() == threads


# --- logits that stay on the device ---------------------------------------------------------------


class OnDevice(InterfaceArray):
    """A result of the sliding window that says that it lies on a device.

    Only what the pipeline makes of it on the device may come to the host, and what is `fetched`.
    """

    fetched: ClassVar[list[tuple[int, ...]]] = []

    @property
    def __cuda_array_interface__(self) -> Any:
        return super().__cuda_array_interface__

    def cpu(self) -> Any:
        self.fetched.append(self.shape)
        return torch.from_numpy(self.values.copy())

    def __array__(self, *arguments: Any, **keywords: Any) -> Any:
        raise AssertionError("read by NumPy without being fetched")

    def __array_namespace__(self) -> Any:
        return SimpleNamespace(
            float32="float32", zeros=lambda shape, dtype, device: OnDevice(np.zeros(shape, dtype))
        )

    def __init__(self, values: Any, device: int = 0) -> None:
        super().__init__(values, device, maker=False)


@pytest.fixture
def device_windows(monkeypatch: pytest.MonkeyPatch, emulation: Any) -> type[OnDevice]:
    """Sliding windows whose results lie on the emulated device, if they are asked to be there."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    real = nnUNetPredictor._internal_predict_sliding_window_return_logits

    def on_device(self: Any, data: Any, slicers: Any, do_on_device: bool = True) -> Any:
        found = real(self, data, slicers, False)
        return OnDevice(found.numpy()) if do_on_device else found

    monkeypatch.setattr(
        nnUNetPredictor, "_internal_predict_sliding_window_return_logits", on_device
    )
    monkeypatch.setattr(OnDevice, "fetched", [])
    return OnDevice


def on_device(pipeline: Pipeline) -> Pipeline:
    for model in pipeline.networks.members:
        model.predictor.perform_everything_on_device = True
    return pipeline


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_logits_stay_on_the_device(
    models: list[Path], device_windows: type[OnDevice], average: Any
) -> None:
    scores = np.linspace(0, 1, 1000, dtype=np.float32)
    calibrator = Calibrator(bins=20).fit(scores, [scores > 0.4])
    coarse = tiny.write_model(models[0].parent / f"coarse {average}", favour={1: 50.0})
    settings: dict[str, Any] = {**FAST, "average": average, "calibrator": calibrator}
    plain = Pipeline(models, coarse, **settings).predict(ct(), AFFINES["oblique"])
    assert not device_windows.fetched
    found = on_device(Pipeline(models, coarse, **settings)).predict(ct(), AFFINES["oblique"])
    np.testing.assert_array_equal(found.score.array, plain.score.array)
    np.testing.assert_array_equal(found.mask.array, plain.mask.array)
    assert found.notes == ()
    # The calibrated region, once, and nothing else.
    assert device_windows.fetched == [tuple(part.stop - part.start for part in found.roi.box[::-1])]
    assert found.score.array.std() > 0.01


@pytest.mark.parametrize("why", ["no module", "forced"])
def test_logits_go_to_the_host_where_the_device_does_not_export(
    models: list[Path],
    device_windows: type[OnDevice],
    monkeypatch: pytest.MonkeyPatch,
    why: str,
) -> None:
    plain = Pipeline(models, **FAST).predict(ct(), AFFINES["RAS"])
    if why == "forced":
        monkeypatch.setenv("TWINTRACK_BACKEND", "cpu")
    else:
        monkeypatch.setitem(sys.modules, "twintrack._cuda", None)
    found = on_device(Pipeline(models, **FAST)).predict(ct(), AFFINES["RAS"])
    np.testing.assert_array_equal(found.score.array, plain.score.array)
    assert found.notes == ()
    assert [len(shape) for shape in device_windows.fetched] == [4] * len(models)


@pytest.mark.parametrize("members", [1, 3])
def test_a_device_without_memory_for_the_export_leaves_it_to_the_cpu(
    models: list[Path],
    device_windows: type[OnDevice],
    monkeypatch: pytest.MonkeyPatch,
    members: int,
) -> None:
    plain = Pipeline(models[:members], within=(1, 2), **FAST).predict(ct(), AFFINES["LPS"])
    monkeypatch.setenv("TWINTRACK_EMULATION", "memory=100")
    pipeline = on_device(Pipeline(models[:members], within=(1, 2), **FAST))
    with pytest.warns(UserWarning, match="cannot export this case, the CPU does .* bytes of mem"):
        found = pipeline.predict(ct(), AFFINES["LPS"])
    assert len(found.notes) == 1
    np.testing.assert_array_equal(found.score.array, plain.score.array)
    monkeypatch.delenv("TWINTRACK_EMULATION")
    assert pipeline.predict(ct(), AFFINES["LPS"]).notes == ()  # the next case is done there again


def test_a_full_device_gives_up_logits_before_it_gives_up_adding(
    models: list[Path], device_windows: type[OnDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    plain = Pipeline(models, **FAST).predict(ct(), AFFINES["RAS"])
    real = nnUNetPredictor._internal_predict_sliding_window_return_logits
    attempts: list[bool] = []
    full: set[int] = {2}  # attempts for which there is no room

    def scarce(self: Any, data: Any, slicers: Any, do_on_device: bool = True) -> Any:
        attempts.append(do_on_device)
        if len(attempts) in full:
            raise torch.cuda.OutOfMemoryError("no room")
        return real(self, data, slicers, do_on_device)

    monkeypatch.setattr(nnUNetPredictor, "_internal_predict_sliding_window_return_logits", scarce)
    pipeline = on_device(Pipeline(models, **FAST))
    # The second member finds room once the first one's logits are gone, and the others join them.
    found = pipeline.predict(ct(), AFFINES["RAS"])
    assert attempts == [True] * 4
    assert found.notes == ()
    np.testing.assert_array_equal(found.score.array, plain.score.array)
    # It finds none: that model's windows are added up on the CPU from then on.
    attempts.clear()
    full |= {3}
    with pytest.warns(UserWarning, match="added up on the CPU from now on"):
        found = pipeline.predict(ct(), AFFINES["RAS"])
    assert attempts == [True, True, True, False, True]
    np.testing.assert_array_equal(found.score.array, plain.score.array)


def test_logits_of_many_cases_on_the_device(
    models: list[Path], device_windows: type[OnDevice], tmp_path: Path
) -> None:
    cases = [ImageCase(str(seed), (tmp_path / f"{seed}.nii.gz",)) for seed in range(3)]
    for seed, case in enumerate(cases):
        write_volume(case.images[0], ct(seed=seed), AFFINES["LPS"])
    plain = Pipeline(models[:2], **FAST)
    job = PredictJob(on_device(Pipeline(models[:2], **FAST)), tmp_path / "out")
    outcomes = predict_cohort(cases, job)
    assert [outcome.state for outcome in outcomes] == ["done"] * 3
    for case in cases:
        found = read_volume(tmp_path / "out" / f"{case.name}.nii.gz").array
        np.testing.assert_array_equal(found, plain.predict(case.images).score.array)
    assert len(device_windows.fetched) == len(cases)


def test_failed_cases_hold_no_images(
    models: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A run keeps all of its outcomes: a hundred failed cases would be in memory together.
    pipeline = Pipeline(models[:1], **FAST)
    held: list[weakref.ref[Any]] = []

    def full(data: Any, index: int, make_room: Any) -> Any:
        held.append(weakref.ref(data))
        try:
            raise RuntimeError("no room")
        except RuntimeError as error:
            raise DeviceMemoryError("a patch does not fit") from error

    monkeypatch.setattr(pipeline.networks.members[0], "logits", full)
    cases = [ImageCase(name, (tmp_path / f"{name}.nii.gz",)) for name in ("empty", "full")]
    for case, array in zip(cases, (np.zeros((9, 9, 9), np.int16), ct()), strict=True):
        write_volume(case.images[0], array, np.eye(4))
    outcomes = predict_cohort(cases, PredictJob(pipeline, tmp_path / "out"))
    messages = [outcome.failure.message for outcome in outcomes if outcome.failure]
    assert messages == [
        "the image is 0 everywhere; there is nothing to segment",
        "a patch does not fit",
    ]
    gc.collect()
    assert len(held) == 1
    assert all(one() is None for one in held)
