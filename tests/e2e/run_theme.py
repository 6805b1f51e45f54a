#!/usr/bin/env python3
"""Runs tests/e2e/THEME_test.py with the Python of build/venv.

    tests/e2e/run_theme.py THEME [unittest arguments]
"""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main(arguments):
    python = ROOT / "build/venv/bin/python"
    needed = {
        python: "the Python packages; tests/run.sh installs them",
        ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf":
            "the demo model; `baton pull smollm2-135m`",
        pathlib.Path(os.environ.get("BATON_E2E_BINARY", ROOT / "build/release/baton")):
            "the program; `cmake --build --preset release`",
    }
    for path, what in needed.items():
        if not path.exists():
            print(f"there is no {path}: {what}", file=sys.stderr)
            return 1
    theme = HERE / f"{arguments[0]}_test.py"
    os.execv(python, [str(python), "-u", str(theme), "-v", *arguments[1:]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
