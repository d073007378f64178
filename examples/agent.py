#!/usr/bin/env python3
"""A client of the tools that a language-model agent uses (MCP). It starts delayed-vlm mcp itself.

python3 examples/agent.py "What is on the table?"
python3 examples/agent.py "What is on the table?" --namespace /robot1

Requires the extra mcp. An agent's program gives the same tools to its model: docs/agents.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client


async def run(question: str, namespace: str) -> None:
    """List the tools, ask, and show the newest key frames."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "delayed_vlm_ros", "mcp", "--namespace", namespace],
        env=dict(os.environ),  # otherwise the server has none of the ROS variables
    )
    async with Client(stdio_client(server)) as client:
        tools = (await client.list_tools()).tools
        print(f"tools: {', '.join(tool.name for tool in tools)}")
        asked = await client.call_tool("ask_scene", {"question": question})
        if asked.is_error:
            sys.exit(f"error: {asked.content[0].text}")
        print(f"answer: {asked.structured_content['answer']}")
        listed = await client.call_tool("list_key_frames", {"limit": 3})
        for frame in listed.structured_content["key_frames"]:
            print(f"key frame {frame['id']} of {frame['time']}: {frame['reason'] or 'newest'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Use a scene_memory node as an agent does.")
    parser.add_argument("question")
    parser.add_argument("--namespace", default="/", help="namespace of the node")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.question, arguments.namespace))
