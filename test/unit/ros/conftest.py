"""What these tests share with those that talk over DDS."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "ros"))
