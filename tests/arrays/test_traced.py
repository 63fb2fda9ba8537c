"""Compiled functions refuse tensors whose values are not in memory, or would be recorded."""

import warnings

import pytest

import twintrack as tt

torch = pytest.importorskip("torch", exc_type=ImportError)
pytestmark = pytest.mark.torch


class Applied(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, score):
        return self.function(score) * 2


SCORE = torch.linspace(0, 1, 12).reshape(3, 4)
RATERS = (torch.stack([SCORE, SCORE / 2]) > 0.4).to(torch.uint8)
MAP = tt.CalibrationMap([0.2, 0.6, 1], [0, 0.1, 0.9])
CALIBRATOR = tt.Calibrator(bins=3).fit(SCORE, RATERS)
FUNCTIONS = {
    "map": MAP,
    "transform": lambda score: CALIBRATOR.transform(score),
    "fit": lambda score: tt.Calibrator(bins=3).fit(score, RATERS),
    "evaluate": lambda score: tt.evaluate(score, RATERS).brier,
}


def in_a_fake_mode(function):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        function(torch.rand(3, 4))


def on_a_fake_tensor(function):
    from torch._subclasses.fake_tensor import FakeTensorMode

    function(FakeTensorMode().from_tensor(SCORE))


def in_make_fx(function):
    from torch.fx.experimental.proxy_tensor import make_fx

    make_fx(function)(SCORE)


PLACES = {
    "meta": lambda function: function(SCORE.to("meta")),
    "fake mode": in_a_fake_mode,
    "fake tensor": on_a_fake_tensor,
    "make_fx": in_make_fx,
    "trace": lambda function: torch.jit.trace(Applied(function), SCORE),
    "export": lambda function: torch.export.export(Applied(function), (SCORE,), strict=False),
    "vmap": lambda function: torch.vmap(function)(SCORE[None]),
    "grad": lambda function: torch.func.grad(function)(SCORE),
    "functionalize": lambda function: torch.func.functionalize(function)(SCORE),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_has_no_values_is_refused(place, function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is to be replaced by torch.export
        with pytest.raises(TypeError, match=r"torch_module\(\)"):
            PLACES[place](FUNCTIONS[function])


def test_an_output_without_values_and_a_symbolic_trace_are_refused():
    with pytest.raises(TypeError, match=r"out is on the device meta.*torch_module\(\)"):
        MAP(SCORE, out=SCORE.to("meta"))
    with pytest.raises(TypeError, match=r"torch_module\(\)"):
        torch.fx.symbolic_trace(Applied(MAP))


# Dynamo warns of any cache that it looks through.
looks_through = pytest.mark.filterwarnings("ignore:Dynamo detected a call to:UserWarning")


def compiled(fullgraph):
    return torch.compile(lambda score: MAP(score) * 2, backend="eager", fullgraph=fullgraph)


@looks_through
def test_a_strict_export_or_a_whole_graph_names_the_module():
    from torch._dynamo.exc import Unsupported

    with pytest.raises(Unsupported, match=r"torch_module\(\)"):
        torch.export.export(Applied(MAP), (SCORE,), strict=True)
    with pytest.raises(Unsupported, match=r"torch_module\(\)"):
        compiled(fullgraph=True)(SCORE)


@looks_through
def test_a_compiled_function_has_the_values_between_two_graphs():
    assert torch.equal(compiled(fullgraph=False)(SCORE), MAP(SCORE) * 2)


def test_a_mode_that_only_watches_is_no_trace():
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False):
        assert torch.equal(MAP(SCORE), MAP(SCORE.clone()))
