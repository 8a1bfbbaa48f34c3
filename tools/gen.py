"""Generates the Python code of every .proto below proto/ beside it, with the pinned tools.

python tools/gen.py            write
python tools/gen.py --check    exit 1 when the committed code differs from what would be written
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.metadata
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
# The contract of A2A is another project's: no code is made of it, the gateway reads its descriptors.
A2A = ROOT / "gateway" / "weft" / "gateway" / "doors" / "a2a" / "a2a.proto"
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")
PINNED = {"grpcio-tools": "1.76.0", "mypy-protobuf": "5.1.0"}


def google_protos() -> pathlib.Path:
    """Where googleapis-common-protos keeps google/api/*.proto."""
    dist = importlib.metadata.distribution("googleapis-common-protos")
    return pathlib.Path(str(dist.locate_file("")))


def generate(out: pathlib.Path) -> None:
    """Runs protoc over all contracts, writing below `out`."""
    for package, version in PINNED.items():
        if (found := importlib.metadata.version(package)) != version:
            sys.exit(f"gen: needs {package}=={version}, found {found}")
    import grpc_tools

    builtin = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    sources = sorted(str(p.relative_to(PROTO)) for p in PROTO.rglob("*.proto"))
    plugins = pathlib.Path(sys.executable).parent
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"-I{PROTO}", f"-I{google_protos()}", f"-I{builtin}"),
            f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
            *(f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")),
            *sources,
        ],
        check=True,
        cwd=PROTO,
        stderr=subprocess.PIPE,
    )
    for grpc_module in [*out.rglob("*_pb2_grpc.py")]:
        if "_registered_method" not in grpc_module.read_text():  # a .proto with no service
            grpc_module.unlink()
            grpc_module.with_suffix(".pyi").unlink(missing_ok=True)


def describe(proto: pathlib.Path, out: pathlib.Path) -> None:
    """Writes the descriptor set of a file and its imports."""
    import grpc_tools

    builtin = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"-I{proto.parent}", f"-I{google_protos()}", f"-I{builtin}"),
            *("--include_imports", f"--descriptor_set_out={out}", proto.name),
        ],
        check=True,
    )


def generated_below(folder: pathlib.Path) -> set[pathlib.Path]:
    """Generated files below a folder, relative to it."""
    return {p.relative_to(folder) for pattern in GENERATED for p in folder.rglob(pattern)}


def main() -> None:
    """Writes or checks the generated code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only compare, exit 1 on drift")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        fresh = pathlib.Path(scratch)
        generate(fresh)
        described, committed = fresh / "a2a.binpb", A2A.with_suffix(".binpb")
        describe(A2A, described)
        before, after = generated_below(PROTO), generated_below(fresh)
        drift = sorted(
            str(p)
            for p in before | after
            if p not in before
            or p not in after
            or not filecmp.cmp(PROTO / p, fresh / p, shallow=False)
        )
        if not (committed.exists() and filecmp.cmp(described, committed, shallow=False)):
            drift.append(str(committed.relative_to(ROOT)))
        if check:
            if drift:
                sys.exit("gen: run `make gen` and commit:\n  " + "\n  ".join(drift))
            return
        shutil.copyfile(described, committed)
        for path in before - after:
            (PROTO / path).unlink()
        for path in after:
            (PROTO / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / path, PROTO / path)
        print(f"gen: {len(after)} files, {len(drift)} changed")


if __name__ == "__main__":
    main()
