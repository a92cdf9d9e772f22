"""Nothing that segflow reads can run code: no pickles, no `torch.load`, no evaluated text, no code of a model's repository.

Here the code is read, and a model that brings code of its own is loaded. `pipeline/test_loading.py` loads what a run stored.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
import torch

from segflow.errors import UserError
from segflow.representation.language_model import load_checkpoint
from segflow_tests.representation.models import make_model

PACKAGE = Path(__file__).parents[2] / "segflow"

MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "jsonpickle", "pickletools"}
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen",
    "torch.load", "torch.save", "torch.jit.load", "torch.package.PackageImporter", "torch.hub.load",
    "joblib.load", "joblib.dump", "joblib.Memory",
    "numpy.load", "numpy.save", "numpy.savez", "numpy.fromregex",
    "pandas.read_pickle", "pandas.read_hdf", "pandas.eval",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.unsafe_load_all",
    "xml.etree.ElementTree.parse", "xml.etree.ElementTree.fromstring",
}  # fmt: skip
"""By their full names, whatever they were imported as."""
METHODS = {"to_pickle", "read_pickle", "unsafe_load"}


def dangers(source: str) -> Iterator[str]:
    """What of a module's code could run what it reads, with the line."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                names[one.asname or one.name.partition(".")[0]] = one.name if one.asname else one.name.partition(".")[0]
                if one.name.partition(".")[0] in MODULES:
                    yield f"{node.lineno}: import {one.name}"
        elif isinstance(node, ast.ImportFrom) and node.module:
            for one in node.names:
                names[one.asname or one.name] = f"{node.module}.{one.name}"
            if node.module.partition(".")[0] in MODULES:
                yield f"{node.lineno}: from {node.module}"
    safe = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(_dotted(base) == "yaml.SafeLoader" for base in node.bases)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {said}" for said in _of_call(node, names, safe))


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _dotted(node: ast.expr) -> str:
    """`a.b.c`; what is no name, such as the value of a call, is `?`."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def _of_call(node: ast.Call, names: dict[str, str], safe: Collection[str]) -> Iterator[str]:
    called = _dotted(node.func)
    head, _, rest = called.partition(".")
    full = ".".join(filter(None, (names.get(head, head), rest)))
    last = called.rpartition(".")[-1]
    given = {one.arg: one.value for one in node.keywords}
    harmless = full.startswith("numpy.") and _is(given.get("allow_pickle"), False)
    harmless = harmless or (full == "yaml.load" and _dotted(given.get("Loader", node)) in safe)
    if (full in CALLS and not harmless) or last in METHODS:
        yield full
    for name in ("allow_pickle", "trust_remote_code", "shell"):
        if name in given and not _is(given[name], False):
            yield f"{full}({name}=...)"
    if last == "from_pretrained":
        if "trust_remote_code" not in given:
            yield f"{full} without trust_remote_code=False"
        if "Tokenizer" not in called and not _is(given.get("use_safetensors"), True):
            yield f"{full} without use_safetensors=True"


def test_no_code_could_run_what_it_reads() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 150
    found = {str(file.relative_to(PACKAGE)): list(dangers(file.read_text(encoding="utf-8"))) for file in files}
    assert {name: said for name, said in found.items() if said} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from cloudpickle import loads",
        "import torch\ntorch.load(x)",
        "import torch as t\ntaken = t.load(x, weights_only=True)",
        "from torch import load as read\nread(x)",
        "from joblib import Parallel, load\nload(x)",
        "import numpy as np\nnp.load(x)",
        "import numpy as np\nnp.load(x, allow_pickle=True)",
        "import yaml\nclass Own(yaml.Loader): pass\nyaml.load(x, Loader=Own)",
        "import other\nother.read(x, allow_pickle=True)",
        "import other\nother.read(x, allow_pickle=flag)",
        "import yaml\nyaml.load(x, Loader=yaml.SafeLoader)",
        "from yaml import unsafe_load\nunsafe_load(x)",
        "eval(x)",
        "frame.to_pickle(x)",
        "import subprocess\nsubprocess.run(x, shell=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=False)",
        "AutoModel.from_pretrained(x, use_safetensors=False, trust_remote_code=False)",
        "AutoModel.from_pretrained(x, use_safetensors=True)",
        "AutoTokenizer.from_pretrained(x, trust_remote_code=True)",
    ],
)
def test_the_check_itself_sees(source: str) -> None:
    assert list(dangers(source))


def test_it_lets_pass_what_is_harmless() -> None:
    harmless = (
        "import torch, yaml, json, numpy as np\nmodel.eval()\njson.load(x)\nyaml.safe_load(x)\nre.compile(x)\nload(x)\n"
        "np.load(x, allow_pickle=False)\nclass Own(yaml.SafeLoader): pass\nyaml.load(x, Loader=Own)"
    )
    assert list(dangers(harmless)) == []


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    folder, proof = make_model(tmp_path / "model"), tmp_path / "it ran"
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings |= {"model_type": "of its own", "auto_map": {"AutoConfig": "own.Settings", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "own.py").write_text(f"open({str(proof)!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"text\.encoder: cannot load"):
        load_checkpoint(str(folder), 64)
    assert not proof.exists()


def test_weights_that_are_a_pickle_are_not_read(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"text\.encoder: cannot load"):
        load_checkpoint(str(folder), 64)
