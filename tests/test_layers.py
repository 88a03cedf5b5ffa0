"""Lower layers never import higher ones."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "retina_seg"
LAYERS = [
    {"_version", "errors", "files"},
    {
        "manifest",
        "fov",
        "framing",
        "metrics",
        "pieces",
        "sparse",
        "atoms",
        "boundaries",
        "biomarkers",
        "centrelines",
        "decode",
        *(
            "decode_limits",
            "decode_names",
            "decode_nifti",
            "decode_pillow",
            "decode_png",
            "decode_pnm",
            "decode_tags",
            "decode_tiff",
        ),
        "labels",
        "overlay",
    },
    {"io", "config", "cards", "datasets", "releases", "phantom", "preprocess", "augment", "patches", "photographs"}
    | {
        "models",
        "losses",
        "protocols",
        "scores",
        "duplicates",
        "agreement",
        "quality",
        "gate",
        "postprocess",
        "lesions",
    }
    | {"subgroups", "markdown", "published", "degradations"},
    {"checkpoint", "zoo", "inference", "extents", "explain"},
    {"loop", "train", "ensemble", "evaluate", "audit", "download", "batch", "scoring", "report", "demonstration"}
    | {"benchmark", "records", "groups", "matrices", "results", "figures", "robustness"},
    {"terminal", "viewer", "classify", "arguments"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_downwards(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    assert own in LEVEL, f"{own} has no layer: add it to LAYERS"
    modules = {name.split(".")[1] for name in _imports(path) if name.startswith("retina_seg.")}
    higher = {name for name in modules & set(LEVEL) if LEVEL[name] > LEVEL[own]}
    assert not higher, f"{own} imports {', '.join(sorted(higher))} from above"


def test_the_core_knows_nothing_of_classification():
    users = {path.relative_to(PACKAGE).parts[0] for path in FILES if "retina_seg.classify" in " ".join(_imports(path))}
    assert users <= {"classify", "cli.py", "viewer"}


def test_only_one_file_knows_albumentations_and_only_two_draw():
    users = {
        library: {path.stem for path in FILES if any(name.split(".")[0] == library for name in _imports(path))}
        for library in ("albumentations", "matplotlib")
    }
    assert users == {"albumentations": {"augment"}, "matplotlib": {"report", "figures"}}


@pytest.mark.parametrize(
    "name",
    [
        *("metrics", "biomarkers", "centrelines", "evaluate", "manifest", "datasets", "fov", "io", "phantom"),
        *(
            "preprocess",
            "postprocess",
            "protocols",
            "scores",
            "records",
            "groups",
            "matrices",
            "results",
            "degradations",
        ),
    ],
)
def test_numpy_modules_do_not_import_torch(name):
    assert not any(module.split(".")[0] == "torch" for module in _imports(PACKAGE / f"{name}.py"))


def test_models_and_losses_take_no_config():
    for path in (PACKAGE / "losses.py", *(PACKAGE / "models").glob("*.py")):
        assert not any("config" in name for name in _imports(path))
