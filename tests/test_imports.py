"""Who may import whom: the import rule, read off the source and seen in processes."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import normbench

PACKAGE = Path(normbench.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What may be imported, besides errors and registry, by the module on the left; a
# package stands for all in it.
ALLOWED = {
    "cli.__init__": {"cli.bench", "cli.claim", "cli.dashboard", "cli.doctor"}
    | {"cli.footprint", "cli.look", "cli.plot", "cli.report", "cli.results", "cli.run"}
    | {"cli.stylize"}
    | {"cli.sweep", "cli.sync", "cli.watch"},
    "cli.claim": {"check", "choices", "cli.options", "cli.sweep", "cli.tables"}
    | {"comparison", "config", "manifest", "plan", "progress", "provenance"}
    | {"registration", "remarks", "report", "report.paragraphs", "report.registered"}
    | {"report.verdicts", "report.words", "theorems", "trial", "verdict"},
    "cli.doctor": {"cli.options", "cli.tables", "config", "doctor", "provenance"},
    "cli.bench": {"bench", "cli.options", "cli.tables"},
    "cli.look": {"catalogue", "choices", "cli.options", "cli.tables", "provenance"}
    | {"probes.trained", "query", "record"},
    "cli.results": {"cli.options", "cli.tables", "parquet", "query", "record"},
    "cli.plot": {"choices", "cli.claim", "cli.options", "query", "record"}
    | {"registration", "report", "verdict"},
    "cli.sync": {"cli.options", "sync"},
    "cli.dashboard": {"cli.options", "report.dashboard", "verdict"},
    "cli.watch": {"cli.options", "cli.tables", "progress", "watch"},
    "cli.options": {"choices"},
    "stats": set(),
    "cli.run": {"cli.options", "cli.tables", "config", "experiment", "progress"}
    | {"parallel", "provenance", "record"},
    "cli.sweep": {"cli.options", "cli.tables", "engines", "experiment", "forecast"}
    | {"manifest", "plan", "progress", "provenance", "record"},
    "__main__": {"cli"},
    "check": {"census", "choices", "claims", "contrasts", "provenance", "record"}
    | {"registration", "theorems", "trial", "verdict"},
    "trial": {"config", "contrasts", "engines", "forecast", "manifest", "plan"}
    | {"progress", "record", "registration", "schema", "verdict"},
    "comparison": {"plan", "registration"},
    "claims": {"contrasts", "registration", "schema", "stats", "verdict"},
    "contrasts": {"registration", "schema", "stats", "verdict"},
    "registration": {"choices"},
    "verdict": {"registration", "remarks"},
    "remarks": set(),
    "census": {"data.cache"},
    "engines": {"engines", "experiment", "network", "progress"}
    | {"provenance", "record", "schema"},
    "doctor": {"data.cache", "engines", "network", "norms.base", "provenance", "schema"}
    | {"tasks.base", "tracking", "train"},
    "plan": {"choices", "config", "manifest", "network", "provenance", "record"}
    | {"schema"},
    "forecast": {"schema"},
    "manifest": {"record", "schema"},
    "watch": {"forecast", "manifest", "progress", "query", "record", "schema"},
    "progress": {"schema"},
    "checkpoint": {"record"},
    "experiment": {"checkpoint", "config", "network", "outcome", "parallel"}
    | {"progress", "provenance", "record", "replica", "run", "schema", "tasks.base"}
    | {"tracking"},
    "run": {"checkpoint", "evaluation", "network", "norms.base", "outcome", "parallel"}
    | {"probes.trained", "progress", "record", "replica", "schema", "tasks.base"}
    | {"tracking", "train"},
    "outcome": {"checkpoint", "config", "parallel", "provenance", "schema"}
    | {"tasks.base", "train"},
    "replica": {"norms.base", "norms.statistics", "parallel", "schema", "tasks.base"}
    | {"train"},
    "network": {"data.base", "norms.base", "norms.factory", "reparam", "schema"}
    | {"tasks.base"},
    "evaluation": {"norms", "tasks.base"},
    "bench": {"network", "norms"},
    "catalogue": {"choices", "config", "network", "norms", "schema", "tasks.base"},
    "config": {"choices", "data.base", "norms.base", "probes.trained", "reparam"}
    | {"schema", "tasks.base"},
    "tracking": {"record", "schema"},
    "sync": {"record"},
    "query": {"schema", "stats"},
    "parquet": {"record"},
    "provenance": {"schema"},
    "record": {"schema"},
    "norms": {"norms.base", "norms.statistics"},
    "norms.factory": {"norms.base", "norms.ghost"},
    "norms.__init__": {"norms"},
    "probes": {"norms.base", "probes.base"},
    "probes.trained": {"tasks.base"},
    "probes.watch": {"norms.base", "probes.trained"},
    "probes.statistic_noise": {"probes.trained", "probes.watch"},
    "probes.pad_statistics": {"data.base", "probes.trained", "probes.watch"},
    "probes.discrepancy": {"norms.base", "probes.trained", "probes.watch"},
    "probes.style_leakage": {"data.base", "probes.trained"},
    "probes.regrouped": {"norms.base", "probes.trained", "probes.watch"},
    "probes.words": set(),
    "probes.footprint": {"norms.base", "probes.base", "probes.words"},
    "probes.portrait": {"norms.base", "probes.footprint", "probes.invariance"}
    | {"probes.words"},
    "theorems": {"config", "network", "norms", "probes", "reparam", "schema"}
    | {"tasks.base", "theorems", "train"},
    "theorems.base": set(),
    "cli.report": {"cli.options", "report.document", "report.material"},
    "report.columns": {"record", "report.material", "schema"},
    "report.document": {"record", "report.figures", "report.material", "report.page"}
    | {"report.palette"},
    "report.footprints": {"report.cubes", "report.panel"},
    "report.material": {"choices", "query", "record", "registration", "schema"}
    | {"verdict"},
    "report.page": {"registration", "report.columns", "report.footprints", "schema"}
    | {"report.material", "report.pictures", "report.published", "report.words"}
    | {"verdict"},
    "report.pictures": {"query", "report.material", "schema"},
    "report.cubes": {"report.drawing", "report.panel"},
    "report.dashboard": {"report.words", "verdict"},
    "report.drawing": {"record"},
    "report.figures": {"registration", "report.drawing", "report.forest", "stats"}
    | {"report.palette", "report.published", "report.series", "report.words"}
    | {"verdict"},
    "report.forest": {"report.drawing", "report.palette", "report.series", "verdict"}
    | {"report.words"},
    "report.palette": {"verdict"},
    "report.gallery": {"report.drawing", "report.series"},
    "report.published": set(),
    "report.runs": {"query", "report.drawing", "report.series"},
    "report.series": {"report.drawing", "report.palette"},
    "report.training": {"report.drawing", "report.series", "stats"},
    "report.registered": {"registration", "report.paragraphs", "report.published"}
    | {"report.words"},
    "report.verdicts": {"report.paragraphs", "report.published", "report.words"}
    | {"verdict"},
    "report.words": {"registration", "verdict"},
    "cli.footprint": {"cli.options", "cli.tables", "choices", "config", "provenance"}
    | {"probes.portrait", "probes.invariance", "report.cubes", "report.panel"},
    "tasks": {"tasks.base", "data.base"},
    "tasks.cnn": {"tasks.base", "data.augmentation", "data.base", "resnet"},
    "tasks.style": {"tasks.base", "data.base", "data.cache", "perceptual"},
    "data": {"data.augmentation", "data.base", "data.cache"},
    "data.augmentation": {"data.base"},
    "data.files": {"data.cache"},
    "data.folder": {"data.augmentation", "data.base", "data.cache", "data.files"}
    | {"data.pictures"},
    "data.pictures": {"data.files"},
    "data.content_folder": {"data.base", "data.cache", "data.files", "data.pictures"},
    "perceptual": {"data.downloads"},
    "stylize": {
        "data.files",
        "data.pictures",
        "norms.base",
        "norms.factory",
        "record",
        "reparam",
    }
    | {"schema", "tasks.style"},
    "cli.stylize": {"cli.options", "provenance", "record", "stylize"},
    "data.texts": {"data.base", "data.cache", "data.files"},
    "data.hf": {"data.base", "data.files", "data.texts"},
    "data.text_csv": {"data.base", "data.files", "data.texts"},
    "data.display_names": {"data.base", "data.cache", "data.texts"},
    "data.cifar": {"data.augmentation", "data.base", "data.downloads"},
    "data.mnist": {"data.downloads"},
    "data.photographs": {"data.appearance", "data.base", "data.cache"}
    | {"data.pictures"},
}
EVERYWHERE = {"errors", "registry"}

# Libraries that only these modules may import.
ONLY_IN = {
    "hydra": {"config", "plan"},
    "omegaconf": {"config", "plan"},
    "wandb": {"tracking", "report.dashboard"},
    "wandb_workspaces": {"report.dashboard"},
    "datasets": {"data.hf"},
    "torchvision": {"census", "resnet", "data.downloads"},
    "typer": {"cli"},
    "rich": {"cli", "progress"},
    "matplotlib": {"report"},
    "pyarrow": {"parquet"},
    "ray": {"engines.ray"},
    "submitit": {"engines.slurm"},
    "scipy": {"stats"},
}
WITHOUT_TORCH = {
    "cli",
    "report",
    "schema",
    "registration",
    "remarks",
    "claims",
    "contrasts",
    "verdict",
    "record",
    "query",
    "parquet",
    "stats",
    "sync",
    "errors",
    "registry",
    "choices",
    "progress",
    "forecast",
    "manifest",
    "watch",
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> Iterator[str]:
    """Every module imported anywhere in the file, but for those of type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            assert node.module is not None
            if (PACKAGE.parent / node.module.replace(".", "/")).is_dir():
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}".replace(".", "/")
                    where = PACKAGE.parent / inner
                    is_module = where.is_dir() or where.with_suffix(".py").exists()
                    yield f"{node.module}.{alias.name}" if is_module else node.module
            else:
                yield node.module


def rule(module: str) -> set[str]:
    """The modules that `module` may import; the most specific entry holds."""
    package = module.split(".")[0]
    return ALLOWED.get(module, ALLOWED.get(package, set())) | EVERYWHERE


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_module_imports_only_what_the_rule_allows(path: Path) -> None:
    module = module_name(path)
    allowed = rule(module)
    for name in imports(path):
        library, _, inner = name.partition(".")
        if library == "normbench" and inner:
            within = {inner, inner.split(".")[0]}
            assert within & allowed, f"{module} imports {name}"
        own = {module, module.split(".")[0]}
        if library in ONLY_IN:
            assert own & ONLY_IN[library], f"{module} imports {name}"
        if library == "torch":
            assert not own & WITHOUT_TORCH, f"{module} imports torch"


def test_every_permission_is_used() -> None:
    used: dict[str, set[str]] = {importer: set() for importer in ALLOWED}
    for path in FILES:
        module = module_name(path)
        importer = module if module in ALLOWED else module.split(".")[0]
        for name in imports(path):
            inner = name.removeprefix("normbench.")
            if importer in used:
                used[importer] |= {inner, inner.split(".")[0]}
    unused = {importer: ALLOWED[importer] - used[importer] for importer in ALLOWED}
    assert {importer: names for importer, names in unused.items() if names} == {}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import normbench.cli", {"torch", "hydra", "numpy", "rich", "pydantic"}),
        ("import normbench.record", {"torch", "hydra", "numpy"}),
        ("import normbench.query", {"torch", "hydra", "numpy"}),
        ("import normbench.claims", {"torch", "hydra", "scipy.stats", "matplotlib"}),
        ("import normbench.report.verdicts", {"torch", "hydra", "numpy", "matplotlib"}),
        ("import normbench.report.document", {"torch", "hydra", "rich", "wandb"}),
        ("import normbench.stats", {"torch", "hydra", "pydantic", "scipy.stats"}),
        ("import normbench.sync", {"torch", "hydra", "numpy", "wandb"}),
        ("import normbench.watch", {"torch", "hydra", "numpy"}),
        ("import normbench.config", {"wandb", "timm", "torchvision", "mlxtend"}),
        ("import normbench.experiment", {"wandb", "timm", "torchvision", "mlxtend"}),
    ],
)
def test_importing_a_module_leaves_the_heavy_ones_out(
    statement: str, absent: set[str]
) -> None:
    code = f"{statement}; import sys; print(sorted({absent!r} & sys.modules.keys()))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
