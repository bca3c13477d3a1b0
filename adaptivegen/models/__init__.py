"""Generative models as the services see them: cards, the generator protocol, the ONNX Runtime backend."""
