"""Training of the Pocket models: procedural world, data, flow matching, export, evaluation."""
