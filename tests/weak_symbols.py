"""Checks the object files of each ISA level: ``python tests/weak_symbols.py BUILD_FOLDER [--nm NM]``.

A weak symbol (an inline function, a template) may stand in many objects, and the linker keeps any one of them. One that is
compiled for AVX-512 and has the same name in a file for every CPU could so end a program on an older CPU. So the objects of a
level may define weak symbols only in the level's own namespace, ``trainstep::<level>``. Exit status 1, with the names, where
one does otherwise.
"""

import argparse
import re
import subprocess
from pathlib import Path

# A word of data that tells the unwinder where to find the C++ runtime's function: the same on every level.
ALIKE = {"DW.ref.__gxx_personality_v0"}


def foreign(nm_output: str, level: str) -> list[str]:
    """The weak symbols in what ``nm`` printed (names mangled) that lie outside the level's namespace."""
    # _Z, then what the name is of (a guard, a vtable, something local to a function), then the namespaces.
    own = re.compile(rf"_Z(?:GV|GR|TV|TT|TI|TS|Z)*NK?9trainstep{len(level)}{level}")
    rows = [line.split() for line in nm_output.splitlines()]  # address (none where it is not defined here), kind, name
    weak = {row[2] for row in rows if len(row) == 3 and row[1] in "VvWwu"}
    return sorted(name for name in weak - ALIKE if not own.match(name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="the folder that CMake built in")
    parser.add_argument("--nm", default="nm", help="the nm that reads these objects")
    args = parser.parse_args()
    found = 0
    levels = sorted((args.build / "CMakeFiles").glob("trainstep_*.dir"))
    for folder in levels:
        level = folder.name.removeprefix("trainstep_").removesuffix(".dir")
        objects = sorted(folder.rglob("*.o"))
        for path in objects:
            run = subprocess.run([args.nm, str(path)], check=True, capture_output=True, text=True)
            for name in foreign(run.stdout, level):
                print(f"{path.name} of {level} defines the weak symbol {name}, outside trainstep::{level}")
                found += 1
        if not objects:
            parser.error(f"{folder} has no objects")
        print(f"{level}: {len(objects)} objects, weak symbols checked")
    if not levels:
        parser.error(f"{args.build} has no objects of an ISA level")
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
