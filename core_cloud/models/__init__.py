"""Torch side of the models: the Pocket networks and the registry that adds the torch backend."""
