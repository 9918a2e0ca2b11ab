"""Vocabularies written by any language model behind an OpenAI-compatible chat server.

`questions` holds the prompts and checks every answer, `server` sends, retries and falls back,
`cache` keeps what was accepted, `generator` asks until nothing is missing, `frames` shows videos to
multimodal models, `output` writes the label file. Nothing here computes with torch.
"""
