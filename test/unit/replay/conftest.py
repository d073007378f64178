"""What these tests need: their helpers, also in the processes that they start."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
