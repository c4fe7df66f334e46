"""The registry, U-Nets against their reference implementations, weights files, and the two pretrained networks."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fastnets.errors import InputError
from fastnets.models.registry import create_model, get_entry, list_models, weights_path
from fastnets.models.unet import UNet
from fastnets.models.weights import load_weights

HERE = Path(__file__).parent
DATA = HERE / "data"
PRETRAINED = [name for name in list_models() if get_entry(name).weights]


# --- registry


@pytest.mark.parametrize("name", list_models())
def test_entries_describe_what_they_build(name: str) -> None:
    entry = get_entry(name)
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model(name).parameters()) == entry.parameters
    assert entry.name == name
    assert (entry.weights is None) == (entry.licence is None)
    if entry.recipe:
        spatial = len(entry.recipe.axes)
        assert (spatial,) == entry.dims
        assert len(entry.recipe.size or entry.recipe.spacing or ()) == spatial
        with torch.inference_mode():
            out = create_model(name).eval()(torch.zeros(1, entry.recipe.channels, *[32] * spatial))
        classes = len(entry.recipe.classes)
        assert out.shape[1] == (classes if entry.recipe.threshold is None else 1)
        assert [c.value for c in entry.recipe.classes] == list(range(classes))


def test_list_models_filters_by_pattern() -> None:
    assert list_models("*unet*") == ["brain_unet3d", "unet"]
    assert list_models("resnet9000") == []


def test_options_reach_the_model() -> None:
    model = create_model("unet", dims=3, in_channels=1, num_classes=4, width=4, depth=2)
    assert model(torch.zeros(1, 1, 8, 12, 16)).shape == (1, 4, 8, 12, 16)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("brain_unet", {}, "brain_unet3d.*fastnets models"),
        ("zzz", {}, "unknown model 'zzz': `fastnets models`"),
        ("brain_unet3d", {"dims": 2}, "dims=2.*pass dims=3"),
        ("brain_unet3d", {"num_classes": 3}, "does not take 'num_classes': it takes no options"),
        ("unet", {"base_width": 8}, "does not take 'base_width'.*depth.*width"),
        ("unet", {"norm": "instance"}, "norm='instance'.*'batch' or 'none'"),
        ("unet", {"pretrained": True}, "no weights of 'unet'.*nuclei_demo.*load_weights"),
        ("nuclei_demo", {"pretrained": True, "num_classes": 5}, r"2 of another shape \(outc.conv.weight"),
    ],
)
def test_wrong_requests_say_what_to_do(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_model(name, **options)  # type: ignore[arg-type]


# --- U-Net


def parity(name: str) -> tuple[dict, ModuleType]:
    """A fixture of a reference implementation, and the module that fills its weights."""
    spec = importlib.util.spec_from_file_location("fill", HERE / "parity" / "fill.py")
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    return json.loads((HERE / "parity" / f"{name}.json").read_text()), fill


@pytest.mark.parametrize(("name", "config"), [("milesial", {}), ("mateuszbuda", {"width": 32, "num_classes": 1})])
def test_unet_gives_the_outputs_of_its_references(name: str, config: dict[str, int], tmp_path: Path) -> None:
    expected, fill = parity(f"unet_{name}")
    state = {k: torch.from_numpy(fill.array(k, tuple(s))) for k, s in expected["state"].items()}
    if name == "milesial":
        state["mask_values"] = torch.zeros(2)
    save_file(state, tmp_path / "reference.safetensors")
    model = create_model("unet", **config)
    assert sum(p.numel() for p in model.parameters()) == expected["parameters"]
    load_weights(model, tmp_path / "reference.safetensors", layout=name)
    x = torch.from_numpy(fill.input_array(tuple(expected["input"]["shape"]), expected["input"]["seed"]))
    with torch.inference_mode():
        out = model.eval()(x)
    if name == "mateuszbuda":
        out = out.sigmoid()
    assert fill.relative_error(out.numpy(), expected["outputs"]["out"]) <= 1e-4


def test_unet_of_the_paper() -> None:
    paper = {"in_channels": 1, "norm": "none", "padding": "valid"}
    with torch.device("meta"):
        assert sum(p.numel() for p in UNet(**paper).parameters()) == 31_030_658
    model = UNet(**paper, width=2)
    assert model(torch.zeros(1, 1, 572, 204)).shape == (1, 2, 388, 20)
    assert [model.output_size(188 + 16 * n) for n in range(3)] == [4, 20, 36]


@pytest.mark.parametrize("up", ["linear", "nearest"])
@pytest.mark.parametrize("dims", [2, 3])
def test_unet_that_interpolates(up: str, dims: int) -> None:
    model = create_model("unet", dims=dims, width=4, depth=2, up=up)
    assert model(torch.zeros(1, 3, *[8] * dims)).shape == (1, 2, *[8] * dims)


def test_unet_that_interpolates_counts_as_its_reference() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in UNet(up="linear").parameters()) == 17_263_042


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        ({}, (1, 3, 64, 250), "a side of 250.*pad it to 256"),
        ({"padding": "valid"}, (1, 3, 200, 188), "a side of 200.*pad it to 204"),
        ({"padding": "valid"}, (1, 3, 16, 16), "a side of 16.*pad it to 188"),
        ({}, (1, 1, 64, 64), r"\(1, 1, 64, 64\).*\(N, 3, H, W\)"),
        ({"dims": 3}, (1, 3, 64, 64), r"\(N, 3, D, H, W\)"),
    ],
)
def test_unet_refuses_shapes_that_do_not_fit(config: dict, shape: tuple[int, ...], message: str) -> None:
    with torch.device("meta"):
        model = UNet(**config)
        with pytest.raises(InputError, match=message):
            model(torch.empty(shape))


# --- weights


def small() -> UNet:
    return UNet(width=2, depth=1)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_file(small().state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def refuses(path: Path, message: str, model: torch.nn.Module | None = None, layout: str | None = None) -> None:
    """Loading fails with the message and changes nothing."""
    model = model or small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        load_weights(model, path, layout=layout)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_load(tmp_path: Path, wrap: bool, legacy: bool) -> None:
    source, target = small(), small()
    state = source.state_dict()
    content = {"state_dict": state, "epoch": 3} if wrap else state
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    load_weights(target, tmp_path / "w.pt")
    assert all(torch.equal(value, state[name]) for name, value in target.state_dict().items())


def test_weights_of_another_model_are_refused(saved: Path) -> None:
    refuses(saved, r"missing from the file \(conv.0.weight, .*…\).*not in the model", create_model("brain_unet3d"))
    refuses(
        saved,
        r"1 of another shape \(inc.double_conv.0.weight \(2, 3, 3, 3\) instead of \(2, 1, 3, 3\)\)",
        UNet(in_channels=1, width=2, depth=1),
    )


def test_truncated_files_are_refused(saved: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(saved.read_bytes()[:-100])
    refuses(cut, "damaged or incomplete")
    for legacy in (False, True):
        torch.save(small().state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
        whole = (tmp_path / "w.pt").read_bytes()
        for size in (12, len(whole) // 2, len(whole) - 30):
            (tmp_path / "cut.pt").write_bytes(whole[:size])
            refuses(tmp_path / "cut.pt", "damaged")


class Payload:
    """A pickle that runs code as it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_that_could_run_code_are_refused(tmp_path: Path, legacy: bool) -> None:
    proof = tmp_path / "ran"
    torch.save({"w": Payload(proof)}, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    refuses(tmp_path / "w.pt", "could run code.*safetensors")
    assert not proof.exists()


def test_foreign_files_are_refused(tmp_path: Path, saved: Path) -> None:
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("not weights at all")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"outc.conv.bias": [1.0]}, tmp_path / "numbers.pt")
    refuses(tmp_path / "empty.pt", "neither")
    refuses(tmp_path / "text.pt", "neither")
    refuses(tmp_path / "list.pt", "holds a list")
    refuses(tmp_path / "numbers.pt", r"outc.conv.bias list instead of \(2,\)")
    refuses(tmp_path / "absent.pt", re.escape("absent.pt cannot be read: No such file"))
    refuses(tmp_path, "Is a directory")
    refuses(saved, "layout='keras'.*milesial or mateuszbuda", layout="keras")


# --- pretrained networks


@pytest.mark.parametrize("name", PRETRAINED)
def test_pretrained_networks_export_and_keep_their_outputs(name: str) -> None:
    entry = get_entry(name)
    assert weights_path(entry).stat().st_size <= 2 << 20
    model = create_model(name, pretrained=True)
    assert not model.training
    x = torch.rand(1, entry.recipe.channels, *[24] * entry.dims[0], generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(model, (x,), strict=False).module()
    with torch.inference_mode():
        torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize("name", PRETRAINED)
def test_pretrained_networks_are_translation_equivariant(name: str) -> None:
    """By multiples of the stride, away from the border: what exact tiling rests on."""
    entry = get_entry(name)
    model = create_model(name, pretrained=True)
    length, margin = 256, 104  # voxels; the receptive field reaches less far than the margin
    shape = [length, *[8] * (entry.dims[0] - 1)]
    x = torch.rand(1, entry.recipe.channels, *shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole, part = model(x), model(x[:, :, 8:])
    torch.testing.assert_close(whole[:, :, 8 + margin : -margin], part[:, :, margin:-margin])


def test_brain_unet3d_refuses_shapes_that_do_not_fit() -> None:
    model = create_model("brain_unet3d")
    with pytest.raises(InputError, match="Y = 181 is not a multiple of 8: pad it to 184"):
        model(torch.zeros(1, 1, 8, 181, 8))
    with pytest.raises(InputError, match=r"must be \(N, 1, X, Y, Z\)"):
        model(torch.zeros(1, 3, 8, 8, 8))


def test_brain_unet3d_finds_the_brain() -> None:
    nibabel = pytest.importorskip("nibabel")
    resize = pytest.importorskip("skimage.transform").resize
    head = np.asarray(nibabel.load(DATA / "ch2.nii.gz").dataobj, np.float32)
    truth = np.asarray(nibabel.load(DATA / "ch2bet.nii.gz").dataobj) > 0
    recipe = get_entry("brain_unet3d").recipe
    x = resize(head, recipe.size, anti_aliasing=True)
    with torch.inference_mode():
        p = create_model("brain_unet3d", pretrained=True)(torch.from_numpy(x / x.max())[None, None])
    brain = resize(p[0, 0].numpy(), head.shape, anti_aliasing=True) > recipe.threshold
    dice = 2 * (brain & truth).sum() / (brain.sum() + truth.sum())
    print(f"brain_unet3d: Dice {dice:.4f}")
    assert dice >= 0.925
