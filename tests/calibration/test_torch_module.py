"""The map as a torch module: its values, and that nothing that is done to a model changes them."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import twintrack as tt

torch = pytest.importorskip("torch", exc_type=ImportError)
pytestmark = pytest.mark.torch

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def typical():
    x = np.linspace(0.002, 0.999, 250) ** 2
    return tt.CalibrationMap(x, 0.01 + 0.9 * x**1.5)


def scores(shape=(), seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def knots(draw):
    """Crowded anywhere, from a single knot up; steps and plateaus."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    places = draw(st.lists(st.sampled_from([0.0, 1e-310, 1e-40, 1e-7, 0.3, 0.5, 1.0]), max_size=4))
    parts = [rng.random(draw(st.integers(1, 30)))]
    for place in places:
        away = place * 10.0 ** rng.uniform(-17, -1, draw(st.integers(1, 20)))
        parts.append(place + rng.choice([-1, 1]) * away)
    parts.append(draw(st.sampled_from([[], [0.0], [1.0], [0.0, 1.0]])))
    x = np.unique(np.concatenate(parts).clip(0, 1))
    return x, np.sort(rng.choice([rng.random(len(x)), np.round(rng.random(len(x)), 1)]))


def every_kind_of_score(x):
    rng = np.random.default_rng(len(x))
    u = np.concatenate([rng.random(2000), 10.0 ** rng.uniform(-44, 0, 2000), [0, 0.5, 1]])
    near = np.concatenate([u, 1 - u, x]).astype(np.float32)
    around = [near, np.nextafter(near, np.float32(2)), np.nextafter(near, np.float32(-1))]
    found = np.unique(np.concatenate(around))
    return torch.from_numpy(found[(found >= 0) & (found <= 1)])


@settings(max_examples=150, deadline=None)
@given(knots())
@example((np.array([0.3]), np.array([0.4])))
@example((np.array([0.0, 5e-324, 1]), np.array([0.0, 1, 1])))
@example((np.array([1e-310, 3e-310, 1]), np.array([0.25, 0.5, 0.75])))
@example((np.array([1e-45, 3e-45, 1]), np.array([0, 1.0, 1])))
@example((np.array([0.5, np.nextafter(0.5, 1), 1]), np.array([0, 0.9, 0.9])))
@example((np.array([0.3, 1.0]), np.array([-0.0, 1])))
def test_is_the_map(pair):
    fitted = tt.CalibrationMap(*pair)
    module = fitted.torch_module()
    score = every_kind_of_score(pair[0])
    mapped = module(score)
    assert (mapped.double() - fitted(score).double()).abs().max() <= 2.0**-22
    assert (mapped.diff() >= 0).all()
    assert mapped.min() >= 0
    assert mapped.max() <= 1
    assert not mapped.signbit().any()
    for dtype in DTYPES:
        cast = score.to(dtype)
        assert torch.equal(module(cast), module(cast.float()).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_of_range_and_nan(dtype):
    module = tt.CalibrationMap([0.25, 0.5], [0.125, 0.75]).torch_module()
    inf = float("inf")
    given = torch.tensor([-inf, -1, -0.0, 0.25, 0.5, 1, 2, inf], dtype=dtype)
    assert module(given).tolist() == [0.125] * 4 + [0.75] * 4
    assert module(torch.tensor([float("nan"), 0.3], dtype=dtype)).isnan().tolist() == [True, False]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_integers_are_refused(dtype):
    module = typical().torch_module()
    with pytest.raises(TypeError, match="score has dtype .*floating"):
        module(torch.ones(3, dtype=dtype))


@pytest.mark.parametrize("size", [5, 1 << 17])
def test_layouts(size):
    module = typical().torch_module()
    score = scores((2, 3, 4, 5, size // 100 + 2))
    expected = module(score.reshape(-1)).reshape(score.shape)
    for view, answer in (
        (score, expected),
        (score.to(memory_format=torch.channels_last_3d), expected),
        (score.permute(4, 2, 0, 1, 3), expected.permute(4, 2, 0, 1, 3)),
        (score[:, 1:, ::2, ::3], expected[:, 1:, ::2, ::3]),
        (score[:, :1].expand(2, 7, -1, -1, -1), expected[:, :1].expand(2, 7, -1, -1, -1)),
        (score[0, 0, 0, 0, 0], expected[0, 0, 0, 0, 0]),
        (score[:0], expected[:0]),
    ):
        mapped = module(view)
        assert torch.equal(mapped, answer)
        if view.numel() and 0 not in view.stride():
            assert mapped.stride() == torch.empty_like(view).stride()
    assert torch.equal(torch.vmap(module)(score), expected)


def test_parts_of_a_large_volume_are_mapped_alike():
    module = typical().torch_module()
    score = scores((3, 700, 701))
    mapped = module(score)
    assert torch.equal(mapped, torch.stack([module(part) for part in score]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_is_the_slope(dtype):
    x, y = np.array([0.1, 0.3, 0.6, 0.8]), np.array([0.0, 0.5, 0.5, 0.9])
    score = torch.tensor([-0.5, 0.05, 0.2, 0.45, 0.7, 0.9, 1.5], dtype=dtype, requires_grad=True)
    tt.CalibrationMap(x, y).torch_module()(score).sum().backward()
    assert score.grad.dtype == dtype
    np.testing.assert_allclose(score.grad, [0, 0, 2.5, 0, 2, 0, 0], rtol=1e-6)


CASTS = {
    "half": lambda model: model.half(),
    "bfloat16": lambda model: model.bfloat16(),
    "double": lambda model: model.double(),
    "to": lambda model: model.to(torch.float16),
    "to and back": lambda model: model.to(torch.bfloat16).float(),
    "buffers one by one": lambda model: [
        setattr(buffer, "data", buffer.to(torch.float16))
        for buffer in model.buffers()
        if buffer.is_floating_point()
    ],
    "to_empty": lambda model: model.to("meta").to_empty(device="cpu"),
    "copy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("cast", CASTS)
def test_no_cast_of_a_model_changes_the_map(cast):
    fitted = typical()
    model = torch.nn.Sequential(torch.nn.Sigmoid(), fitted.torch_module())
    score = scores(5000)
    bits = {dtype: model[1](score.to(dtype)) for dtype in DTYPES}
    changed = CASTS[cast](model)
    model = changed if isinstance(changed, torch.nn.Module) else model
    for dtype, expected in bits.items():
        assert torch.equal(model[1](score.to(dtype)), expected)
    assert not [b for b in model.buffers() if b.is_floating_point()]
    assert model.state_dict() == {}


@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_no_float64_is_made(dtype):
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            tensors = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
            assert all(tensor.dtype != torch.float64 for tensor in tensors), func
            return out

    module = typical().torch_module()
    with Watch():
        module(scores(10).to(dtype))


def network(module):
    torch.manual_seed(0)
    conv = torch.nn.Conv3d(1, 2, 3, padding=1)
    return torch.nn.Sequential(conv, torch.nn.Sigmoid(), module).eval()


def saved_and_loaded(scripted):
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def test_scripts_and_traces():
    module = typical().torch_module()
    net = network(module)
    volume, other = scores((1, 1, 5, 6, 7)), scores((2, 1, 4, 4, 9), seed=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is to be replaced by torch.export
        for made in (torch.jit.script(net), torch.jit.trace(net, volume)):
            assert torch.equal(saved_and_loaded(made)(other), net(other))
        scripted = saved_and_loaded(torch.jit.script(module))
        for made in (scripted, torch.jit.trace(module, volume), copy.deepcopy(scripted).half()):
            for dtype in DTYPES:
                assert torch.equal(made(other.to(dtype)), module(other.to(dtype)))
        with pytest.raises(torch.jit.Error, match="score has dtype"):
            scripted(torch.ones(3, dtype=torch.int32))


@pytest.mark.parametrize("strict", [False, True])
def test_exports_with_dynamic_shapes(strict):
    module = typical().torch_module()
    net = network(module)
    dims = {0: torch.export.Dim("b"), **{k: torch.export.Dim(f"n{k}", min=2) for k in (2, 3, 4)}}
    example, other = scores((2, 1, 5, 6, 7)), scores((3, 1, 4, 8, 9), seed=1)
    program = torch.export.export(net, (example,), dynamic_shapes=(dims,), strict=strict)
    with torch.no_grad():
        assert torch.equal(program.module()(other), net(other))
    alone = torch.export.export(module, (example.half(),), strict=strict).module()
    assert torch.equal(alone(example.half()), module(example.half()))


def test_compiles():
    net = network(typical().torch_module())
    other = scores((2, 1, 4, 5, 6))
    compiled = torch.compile(net, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(other), net(other))


@pytest.mark.parametrize("dynamo", [True, False])
def test_exports_to_onnx(dynamo, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net = network(typical().torch_module())
    axes = {0: "b", 2: "x", 3: "y", 4: "z"}
    path, example = str(tmp_path / "map.onnx"), scores((2, 1, 5, 6, 7))
    options = {"dynamo": True, "dynamic_shapes": (axes,), "opset_version": 18}
    if not dynamo:
        options = {"dynamo": False, "opset_version": 17, "input_names": ["input"]}
        options["dynamic_axes"] = {"input": axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (example,), path, verbose=False, **options)
    session = runtime.InferenceSession(path)
    other = scores((3, 1, 4, 8, 9), seed=1)
    mapped = session.run(None, {session.get_inputs()[0].name: other.numpy()})[0]
    np.testing.assert_allclose(mapped, net(other).detach(), rtol=0, atol=2.0**-20)
