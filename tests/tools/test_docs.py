"""The example works as it stands."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "tools.md"


async def test_the_example_works_when_pasted(short_folder: Path) -> None:
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", example[1]), cwd=short_folder, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(process.communicate(), 50)
    assert said == b'calculator {"value":"0.9","exact":true}\n'
