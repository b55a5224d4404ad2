"""The registry: which versions a model has, which one serves, and why. All pure decisions."""
