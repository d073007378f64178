"""The MCP server: a running ``scene_memory`` node as tools and resources of language-model agents."""
