"""Checks a built wheel by what is in it: ``python tests/check_wheel.py WHEEL``. Exit status 1, with a line for each fault."""

import sys
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

LARGEST = 4_000_000  # bytes
DEPENDENCIES = {"numpy", "safetensors", "tqdm"}
WANTED = (
    "trainstep/py.typed",
    "trainstep/_core.pyi",
    "trainstep/include/trainstep.h",
    "trainstep/cython_optim.pxd",
    "trainstep/data/digits.npz",
    "trainstep/data/DIGITS-LICENSE.md",
)
COMPILED = ("_core", "cython_optim")


def faults(path: Path) -> list[str]:
    found = []
    size = path.stat().st_size
    if size > LARGEST:
        found.append(f"{size:,} bytes, at most {LARGEST:,} are wanted")
    with ZipFile(path) as wheel:
        names = wheel.namelist()
        info = next(name.split("/")[0] for name in names if ".dist-info/" in name)
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    found += [f"{name} is missing" for name in WANTED if name not in names]
    for module in COMPILED:
        built = [name for name in names if name.startswith(f"trainstep/{module}.") and name.endswith((".so", ".pyd"))]
        if len(built) != 1:
            found.append(f"{len(built)} compiled {module}: {built}")
    if not any(name.startswith(f"{info}/licenses/") for name in names):
        found.append("no licence")
    elsewhere = [name for name in names if name.split("/")[0] not in ("trainstep", "trainstep.libs", info)]
    found += [f"{name} is no part of the package" for name in elsewhere]
    required = {r.split(">")[0].strip() for r in metadata.get_all("Requires-Dist") or [] if "extra ==" not in r}
    if required != DEPENDENCIES:
        found.append(f"requires {sorted(required)}, wanted {sorted(DEPENDENCIES)}")
    if "manylinux" in path.name and not any(name.startswith("trainstep.libs/libgomp") for name in names):
        found.append("a manylinux wheel without a libgomp of its own")
    return found


def main(argv: list[str]) -> int:
    path = Path(argv[0])
    found = faults(path)
    for fault in found:
        print(f"{path.name}: {fault}", file=sys.stderr)
    if not found:
        print(f"{path.name}: {path.stat().st_size:,} bytes, as it should be")
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
