"""The client API over HTTP, in the OpenAI videos shape with extras."""
