import pytest
import torch
from torch import nn

from qpairs.encoders.dropout import QuickDropout, set_dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_it_drops_its_share_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    out = QuickDropout(p)(torch.ones(1000, 1003, dtype=dtype))
    assert out.dtype == dtype
    assert (out == 0).double().mean() == pytest.approx(p, abs=0.002)
    assert out.double().mean() == pytest.approx(1, rel=0.01)
    assert len(out[out != 0].unique()) == 1


def test_its_zeros_depend_on_neither_neighbours_nor_place() -> None:
    torch.manual_seed(0)
    kept = (QuickDropout(0.3)(torch.ones(200_000)) != 0).float()
    for lag in (1, 2, 3, 4):
        both = (kept[:-lag] * kept[lag:]).mean()
        assert both == pytest.approx(0.7**2, abs=0.005)
    assert kept.view(-1, 4).mean(0).tolist() == pytest.approx([0.7] * 4, abs=0.01)


def test_the_gradient_passes_what_the_forward_pass_kept() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 13, requires_grad=True)
    out = QuickDropout(0.25)(x)
    out.backward(torch.full_like(out, 3.0))
    torch.testing.assert_close(x.grad, torch.where(out == 0, 0.0, 3 / 0.75), rtol=1e-4, atol=0)


def test_the_same_seed_gives_the_same_zeros_and_evaluation_none() -> None:
    layer, x = QuickDropout(0.2), torch.ones(999)
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(layer(x))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    assert layer.eval()(x) is x
    assert QuickDropout(0.0)(x) is x
    assert layer.train()(torch.empty(0, 5)).shape == (0, 5)


def test_every_dropout_of_a_module_is_set_again_and_again() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
    for p in (0.3, 0.2):
        set_dropout(module, p)
        assert [m.p for m in module.modules() if hasattr(m, "p")] == [p, p]
    kind = nn.Dropout if torch.cuda.is_available() else QuickDropout
    assert isinstance(module[0], kind)


def test_the_greatest_probability_keeps_something() -> None:
    torch.manual_seed(0)
    out = QuickDropout(0.999)(torch.ones(100_000))
    assert torch.isfinite(out).all()
    assert out.mean() == pytest.approx(1, abs=0.2)
