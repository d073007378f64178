"""Make the helper modules of these tests importable, also in the processes that the tests start."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
