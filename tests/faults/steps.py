"""The points at which the program lets itself be killed, as they stand in its code."""

import re
from pathlib import Path

import stylewatch

_CODE = sorted(Path(stylewatch.__file__).parent.rglob("*.py"))
POINTS = [
    point
    for file in _CODE
    for point in re.findall(r'\bfailpoint\("(.+?)"\)', file.read_text(encoding="utf-8"))
]
COMMITS = [point for point in POINTS if point.startswith("ledger.")]
STEPS = [point for point in POINTS if point not in COMMITS]
"""Of one job, but for those of the ledger, which every job passes often."""
