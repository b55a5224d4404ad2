"""kopf wiring, one module per kind: read the world, call a pure decision, apply the result."""
