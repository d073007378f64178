"""The report of ``delayed-vlm replay``: one self-contained HTML page and a CSV table."""
